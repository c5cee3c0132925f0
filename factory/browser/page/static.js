// Data of an export: scripts beside the page, since pages that are opened from disk may not fetch files.
//
// data/index.js sets MENAGERIE.index: {clips, facets: name → {values, codes}, cards: [card], texts: [lower case]};
// data/clips-N.js adds the clips of one part to MENAGERIE.parts. factory/browser/export.py writes both.

class StaticSource {
  constructor() {
    this.index = MENAGERIE.index;
    this.links = MENAGERIE.index.links;
    this.loading = new Map();
  }

  // The same answer as factory/browser/index.py gives.
  async find({ text, values, page }) {
    const { facets, texts, cards } = this.index;
    const size = Number(document.body.dataset.size);
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const names = Object.keys(facets);
    const accepted = names.map((name) => {
      const chosen = values[name] ?? [];
      return chosen.length ? facets[name].values.map((value) => chosen.includes(value)) : null;
    });
    const counts = names.map((name) => facets[name].values.map(() => 0));
    const rows = [];
    for (let row = 0; row < texts.length; row++) {
      if (!words.every((word) => texts[row].includes(word))) continue;
      const passes = names.map((name, i) => !accepted[i] || accepted[i][facets[name].codes[row]]);
      const failed = passes.filter((passed) => !passed).length;
      if (!failed) rows.push(row);
      if (failed < 2) passes.forEach((passed, i) => { if (!failed || !passed) counts[i][facets[names[i]].codes[row]]++; });
    }
    const listed = names.map((name, i) => [name, facets[name].values
      .map((value, code) => ({ value, label: facets[name].labels[code], count: counts[i][code] }))
      .filter(({ count }) => count).sort((a, b) => b.count - a.count || (a.value < b.value ? -1 : 1))]);
    return {
      total: rows.length, clips: texts.length, complete: true, size,
      cards: rows.slice(page * size, (page + 1) * size).map((row) => cards[row]), facets: Object.fromEntries(listed),
    };
  }

  async clip(row) {
    const part = Math.floor(row / this.index.part);
    if (!(row >= 0 && row < this.index.clips)) throw new Error(`There is no clip ${row} on this page.`);
    if (!this.loading.has(part)) {
      this.loading.set(part, new Promise((done, fail) => {
        const script = element("script", { src: `data/clips-${part}.js` });
        script.addEventListener("load", done);
        script.addEventListener("error", () => fail(new Error(`data/clips-${part}.js is missing.`)));
        document.head.append(script);
      }));
    }
    await this.loading.get(part);
    return MENAGERIE.parts[part][row % this.index.part];
  }

  video(row, view) { return `videos/${row}-${view}.mp4`; }
}
