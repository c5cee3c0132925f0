// The page: its address says what it shows, so that links, reloading and going back work.
//   #clip=ROW, or #{"text", "values", "page"} as encoded JSON

class Browser {
  constructor(source) {
    this.source = source;
    this.list = new ClipList(source, (query) => { location.hash = encodeURIComponent(JSON.stringify(query)); });
    this.clip = new ClipPage(source);
    this.back = "#";
    document.getElementById("links").append(...source.links.map(([text, href]) =>
      element("a", { href, target: "_blank", rel: "noreferrer" }, text)));
    addEventListener("hashchange", () => this.follow());
  }

  read() {
    const text = location.hash.slice(1);
    const clip = /^clip=(\d{1,9})$/.exec(text);
    if (clip) return { row: Number(clip[1]) };
    try {
      const query = JSON.parse(decodeURIComponent(text));
      const values = {};
      for (const name of document.body.dataset.facets.split(" ")) {
        if (Array.isArray(query.values?.[name])) values[name] = query.values[name].map(String);
      }
      return { query: { text: String(query.text ?? ""), values, page: Math.max(0, Math.floor(Number(query.page)) || 0) } };
    } catch {
      return { query: { text: "", values: {}, page: 0 } };
    }
  }

  async follow() {
    const { row, query } = this.read();
    document.getElementById("clip").hidden = row === undefined;
    document.getElementById("list").hidden = row !== undefined;
    if (row !== undefined) {
      this.list.clear();
      await this.clip.show(row, this.back);
    } else {
      this.back = location.hash || "#";
      this.clip.close();
      await this.list.show(query);
    }
    this.ready = true;
  }
}

window.browser = new Browser(typeof StaticSource === "undefined" ? new ServerSource() : new StaticSource());
browser.follow();
