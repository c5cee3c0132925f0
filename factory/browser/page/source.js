// Where the page gets its data: from the server, or from the files of an export (static.js has the other class).
//
//   find(query)        {total, clips, complete, size, cards, facets}; query: {text, values: facet → [value], page}
//   clip(row)          what factory/browser/clip.py returns
//   video(row, view)   address of a video
//   links              [text, address] of pages beside this one

class ServerSource {
  constructor() {
    this.links = [["Contact sheet", "contact_sheet.png"], ["Motion report", "report"]];
  }

  async find({ text, values, page }) {
    const chosen = Object.entries(values).filter(([, accepted]) => accepted.length);
    const facets = Object.fromEntries(chosen.map(([name, accepted]) => [name, JSON.stringify(accepted)]));
    return (await request("clips", { ...facets, q: text, page, size: document.body.dataset.size })).json();
  }

  async clip(row) { return (await request("clip", { row })).json(); }

  video(row, view) { return `video?row=${row}&view=${view}`; }
}
