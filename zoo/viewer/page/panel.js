// Controls of one pane: only those that its scene has.

class Panel {
  constructor(pane, viewer) {
    Object.assign(this, { pane, viewer });
    const { header } = pane;
    this.root = element("div", {});
    this.state = "";
    this.add("", element("h1", {}, header.title), element("dl", {}, ...header.facts.map(([label, value]) =>
      element("div", {}, element("dt", {}, label), element("dd", {}, value)))));
    this.status = element("p", { className: "status", id: "status", role: "status" });
    if (header.names.length > 1) this.addList();
    if (header.samples) this.addSeed();
    if (header.text) this.addSentence();
    if (header.samples && header.names.length > 1) this.addBlend();
    if (header.map) this.addMap();
    if (header.keyPoints) this.addDisplay();
    this.addDownloads();
    this.root.append(this.status);
  }

  add(title, ...children) {
    const section = element("section", {}, ...(title ? [element("h2", {}, title)] : []), ...children);
    this.root.append(section);
    return section;
  }

  request(choice) { return this.pane.request(choice); }

  addList() {
    const { names } = this.pane.header;
    const search = element("input", { type: "search", id: "search", placeholder: `Search ${names.length} motions`, ariaLabel: "Search motions" });
    this.list = element("ul", { className: "list", id: "motions" });
    this.none = element("li", { className: "none", hidden: true }, "no motion has these words");
    this.items = names.map((name, index) => {
      const button = element("button", { type: "button" }, name);
      button.addEventListener("click", () => this.request({ kind: "trained", index }));
      return element("li", {}, button);
    });
    this.list.append(...this.items, this.none);
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/);
      this.items.forEach((item, i) => { item.hidden = !words.every((word) => names[i].toLowerCase().includes(word)); });
      this.none.hidden = this.items.some((item) => !item.hidden);
    });
    this.add("Motions", search, this.list);
  }

  addSeed() {
    const seed = element("input", { type: "number", id: "seed", value: 0, min: 0, step: 1, ariaLabel: "Seed" });
    const draw = () => { if (seed.value !== "" && seed.checkValidity()) this.request({ kind: "seed", seed: Number(seed.value) }); };
    const sample = element("button", { type: "button", id: "sample" }, "Sample");
    const next = element("button", { type: "button", id: "next" }, "Next seed");
    sample.addEventListener("click", draw);
    seed.addEventListener("keydown", (event) => { if (event.key === "Enter") draw(); });
    next.addEventListener("click", () => {
      seed.value = Number(seed.value) + 1;
      draw();
    });
    this.add("Random sample", element("div", { className: "row" }, seed, sample, next));
  }

  addSentence() {
    const input = element("input", { type: "text", id: "sentence", maxLength: 1000, placeholder: "jumps up and down", ariaLabel: "Sentence" });
    const show = element("button", { type: "button", id: "show-sentence" }, "Show");
    const send = () => { if (input.value.trim()) this.request({ kind: "text", sentence: input.value }); };
    show.addEventListener("click", send);
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") send(); });
    this.nearest = element("p", { className: "note", id: "nearest" });
    this.add("Sentence", element("div", { className: "row" }, input, show), this.nearest);
  }

  addBlend() {
    const selects = ["a", "b"].map((name) => element("select", { id: `blend-${name}`, ariaLabel: `${name === "a" ? "From" : "To"} motion` }));
    this.selects = selects;
    this.share = element("input", { type: "range", id: "share", min: 0, max: 1, step: 0.01, value: 0, ariaLabel: "Share of the second motion" });
    this.shareText = element("output", { id: "share-text" }, "0 %");
    this.fillSelects();
    selects[1].selectedIndex = 1;
    const blend = () => {
      const [a, b] = selects.map((select) => JSON.parse(select.value));
      const share = Number(this.share.value);
      this.shareText.value = `${Math.round(100 * share)} %`;
      this.request({ kind: "between", a, b, share });
    };
    this.share.addEventListener("input", blend);
    for (const select of selects) select.addEventListener("change", blend);
    this.add("Between two motions", element("div", { className: "row" }, ...selects),
      element("div", { className: "row" }, this.share, this.shareText));
  }

  // Trained motions, then samples that were shown.
  fillSelects() {
    const { header, recent } = this.pane;
    const known = JSON.stringify(recent);
    if (this.known === known) return;
    this.known = known;
    for (const select of this.selects) {
      const before = select.value;
      select.replaceChildren(
        ...header.names.map((name, index) => element("option", { value: JSON.stringify({ kind: "trained", index }) }, name)),
        ...recent.map(({ title, choice }) => element("option", { value: JSON.stringify(choice) }, title)));
      if (before) select.value = before;
      if (select.selectedIndex < 0) select.selectedIndex = 0;
    }
  }

  addMap() {
    const { map, names } = this.pane.header;
    const canvas = element("canvas", { className: "map", id: "map", ariaLabel: "Map of the latent space" });
    this.map = new LatentMap(canvas, { points: map.points, names }, (choice) => this.request(choice));
    const share = `${Math.round(100 * map.explained)} % of the variance of the trained latents`;
    this.add("Latent space", canvas,
      element("p", { className: "note" }, `First two principal components, ${share}. Click a point for its motion, elsewhere to sample there.`));
  }

  addDisplay() {
    const box = (id, text, name) => {
      const input = element("input", { type: "checkbox", id });
      input.addEventListener("change", () => this.pane.setShow({ [name]: input.checked }));
      return element("label", {}, input, text);
    };
    this.add("Show", element("div", { className: "row" }, box("points", "Key points", "points"), box("weights", "Skinning weights", "weights")));
  }

  addDownloads() {
    const buttons = this.pane.header.formats.map((format) => {
      const button = element("button", { type: "button", id: `download${format.replace(".", "-")}` }, format);
      button.addEventListener("click", () => this.download(format, buttons));
      return button;
    });
    this.add("Download what is shown", element("div", { className: "downloads" }, ...buttons));
  }

  async download(format, buttons) {
    const { pane } = this;
    const name = [...new Set([pane.header.title, pane.motion.title])].join(" ");
    const query = { pane: pane.index, choice: JSON.stringify(pane.choice), format, name };
    if (format === ".mp4" && pane.camera) query.camera = JSON.stringify(pane.camera);
    buttons.forEach((button) => { button.disabled = true; });
    this.setStatus(`Writing ${format} …`);
    try {
      const response = await request("export", query);
      const file = /filename="([^"]*)"/.exec(response.headers.get("Content-Disposition"))[1];
      const link = element("a", { href: URL.createObjectURL(await response.blob()), download: file });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      this.setStatus(`Saved ${file}`);
    } catch (error) {
      this.setStatus(error.message, true);
    }
    buttons.forEach((button) => { button.disabled = false; });
  }

  setStatus(text, bad = false) {
    this.status.textContent = text;
    this.status.classList.toggle("error", bad);
  }

  // After every change of the pane.
  update() {
    const { choice, motion, error, waiting } = this.pane;
    const state = error || (waiting ? "Decoding …" : "");
    if (this.state !== state || this.shown !== motion) this.setStatus(state, Boolean(error));
    this.state = state;
    if (this.shown === motion) return;
    this.shown = motion;
    const current = choice.kind === "trained" ? choice.index : -1;
    this.items?.forEach((item, i) => item.firstChild.setAttribute("aria-current", i === current));
    if (current >= 0 && this.items) this.items[current].scrollIntoView?.({ block: "nearest", container: "nearest" });
    if (this.selects) this.fillSelects();
    this.map?.show(motion.point);
    if (this.nearest && choice.kind === "text") {
      const percent = (share) => `${Math.round(100 * share)} %`;
      this.nearest.textContent = motion.confident
        ? motion.nearest.map(([name, share]) => `${name} ${percent(share)}`).join(", ")
        : motion.nearest.map(([name]) => `nearest: ${name}`).join("");
    }
  }
}
