// The page of a clip: its views, attribution, the command that renders it again, and all columns.

class ClipPage {
  constructor(source) {
    this.source = source;
    this.root = document.getElementById("clip");
  }

  async show(row, back) {
    this.close();
    const number = this.number = (this.number ?? 0) + 1;
    const link = element("a", { className: "back", href: back }, "All clips");
    this.root.replaceChildren(link, element("p", { role: "status" }, "Loading …"));
    let clip;
    try {
      clip = await this.source.clip(row);
    } catch (error) {
      if (number === this.number) this.root.replaceChildren(link, element("p", { className: "error", role: "status" }, error.message));
      return;
    }
    if (number !== this.number) return;
    this.turntable = new Turntable(clip, (view) => this.source.video(row, view));
    const text = (value) => element("p", { className: "text" }, value);
    const heading = (value) => element("h2", {}, value);
    const rows = clip.columns.map(({ name, about, value }) =>
      element("tr", {}, element("th", { scope: "row", title: about }, name), element("td", {}, element("div", {}, value))));
    this.root.replaceChildren(
      link,
      element("div", {}, this.turntable.root,
        heading("Render it again"), element("pre", { id: "command" }, clip.command)),
      element("div", {}, element("h1", {}, clip.title), text(clip.caption),
        heading("Attribution"), element("p", { className: "text", id: "attribution" }, clip.attribution),
        heading("Columns"), element("table", { id: "columns" }, element("tbody", {}, ...rows))));
  }

  close() {
    this.number = (this.number ?? 0) + 1;
    this.turntable?.close();
    this.turntable = null;
  }
}
