// The list: filters, search, and one page of cards. Only videos of cards in the window are loaded.

const TYPING_MS = 200; // between the last key and the search
const RETRY_MS = 700; // while the server still reads the index
const THUMBNAIL_VIEW = 2; // slightly from the side

class ClipList {
  constructor(source, open) {
    this.source = source;
    this.query = { text: "", values: {}, page: 0 };
    this.changed = open;
    this.cards = document.getElementById("cards");
    this.observer = new IntersectionObserver((entries) => entries.forEach((each) => this.seen(each)), { rootMargin: "100px" });
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const control = (id) => document.getElementById(id);
    for (const [id, step] of [["previous", -1], ["next", 1], ["previous-below", -1], ["next-below", 1]]) {
      control(id).addEventListener("click", () => {
        this.change({ page: this.query.page + step });
        if (id.endsWith("below")) scrollTo(0, 0);
      });
    }
    control("search").addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.change({ text: control("search").value, page: 0 }), TYPING_MS);
    });
    control("more").addEventListener("click", () => {
      const open = control("facets").classList.toggle("open");
      control("more").setAttribute("aria-expanded", open);
    });
  }

  // A new query, which becomes the address of the page.
  change(changes) {
    this.query = { ...this.query, ...changes };
    this.changed(this.query);
  }

  // Show a query. Of several under way, the latest wins.
  async show(query) {
    this.query = query;
    const search = document.getElementById("search");
    if (search !== document.activeElement) search.value = query.text;
    clearTimeout(this.retry);
    const number = this.number = (this.number ?? 0) + 1;
    let result;
    try {
      result = await this.source.find(query);
    } catch (error) {
      if (number === this.number) this.setCount(error.message, true);
      return;
    }
    if (number !== this.number) return;
    this.result = result;
    this.showFacets(result.facets);
    this.showCards(result.cards);
    this.showPlace(result);
    if (!result.complete) this.retry = setTimeout(() => this.show(this.query), RETRY_MS);
    performance.mark("list shown");
  }

  showPlace({ total, clips, complete, size }) {
    const pages = Math.max(1, Math.ceil(total / size));
    const { page } = this.query;
    const number = (value) => value.toLocaleString("en");
    this.setCount(complete ? `${number(total)} of ${number(clips)} clips` : `Reading the index of ${number(clips)} clips …`);
    document.getElementById("place").textContent = `${number(page + 1)} / ${number(pages)}`;
    for (const end of ["", "-below"]) {
      document.getElementById(`previous${end}`).disabled = page <= 0;
      document.getElementById(`next${end}`).disabled = page + 1 >= pages;
    }
  }

  setCount(text, bad = false) {
    const count = document.getElementById("count");
    count.textContent = text;
    count.classList.toggle("error", bad);
  }

  showFacets(facets) {
    const groups = Object.entries(facets).map(([name, entries]) => {
      const chosen = this.query.values[name] ?? [];
      const missing = chosen.filter((value) => !entries.some((each) => each.value === value));
      const all = [...entries, ...missing.map((value) => ({ value, label: value, count: 0 }))];
      const boxes = all.map(({ value, label, count }) => {
        const box = element("input", { type: "checkbox", value, checked: chosen.includes(value) });
        box.addEventListener("change", () => {
          const rest = (this.query.values[name] ?? []).filter((each) => each !== value);
          this.change({ values: { ...this.query.values, [name]: box.checked ? [...rest, value] : rest }, page: 0 });
        });
        return element("label", {}, box, element("span", { className: "name" }, label || "none"),
          element("span", { className: "number" }, count.toLocaleString("en")));
      });
      const group = element("fieldset", { className: "facet", id: `facet-${name}` }, element("legend", {}, name), element("div", {}, ...boxes));
      group.hidden = all.length < 2 && !chosen.length;
      return group;
    });
    document.getElementById("facets").replaceChildren(...groups);
  }

  showCards(cards) {
    const rows = JSON.stringify(cards);
    if (this.rows === rows) return;
    this.rows = rows;
    this.clear();
    this.cards.replaceChildren(...cards.map((card) => {
      const video = element("video", { muted: true, loop: true, playsInline: true, preload: "none", tabIndex: -1 });
      video.disableRemotePlayback = true;
      video.source = this.source.video(card.row, THUMBNAIL_VIEW % card.num_views);
      this.observer.observe(video);
      const about = [card.caption || card.animation_name, [card.author, card.licence].filter(Boolean).join(", ")].filter(Boolean);
      return element("li", {}, element("a", { className: "card", href: `#clip=${card.row}` }, video,
        element("b", { title: card.title }, card.title), ...about.map((text) => element("span", { title: text }, text))));
    }));
  }

  // Videos in the window play; others are unloaded.
  seen({ target, isIntersecting }) {
    if (isIntersecting && !target.src) {
      target.src = target.source;
      target.preload = "auto";
      if (!this.still) target.play().catch(() => {}); // refused, or unloaded before it began
    } else if (!isIntersecting && target.src) this.unload(target);
  }

  unload(video) {
    video.pause();
    video.removeAttribute("src");
    video.load();
  }

  clear() {
    for (const video of this.cards.querySelectorAll("video")) {
      this.observer.unobserve(video);
      if (video.src) this.unload(video);
    }
    this.cards.replaceChildren();
    this.rows = "";
  }
}
