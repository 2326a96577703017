// What makes the page better; nothing on it needs this. It reads what the page already says, builds
// nodes rather than markup, and asks nobody for anything.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, text, attributes = {}) => {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  let counter = 0;

  // --- what is long is copied whole --------------------------------------------------------------
  for (const code of all(".banner .digest")) {
    const button = make("button", "Copy", { type: "button", class: "button copy" });
    const what = code.closest(".facts > div")?.querySelector("dt").textContent ?? "the command";
    button.setAttribute("aria-label", `Copy ${what}`);
    button.addEventListener("click", async () => {
      getSelection().selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        document.execCommand("copy");  // where a page has no leave to use the clipboard
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    code.after(button);
  }

  // --- tables: sort by a column, search the rows -------------------------------------------------
  const key = (row, column, numeric) => {
    const cell = row.cells[column];
    const text = cell.dataset.key ?? cell.textContent;
    return numeric ? Number(text) : text.toLowerCase();
  };
  const sortBy = (table, column, header) => {
    const numeric = header.dataset.sorts === "number";
    const before = header.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : numeric;
    for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, column, numeric), row]);
    const order = descending ? -1 : 1;
    rows.sort(([a], [b]) => (a < b ? -order : a > b ? order : 0));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  for (const table of all("main table")) {
    if (table.tBodies[0].rows.length < 3) continue;
    all("thead th", table).forEach((header, column) => {
      if (!header.hasAttribute("data-sorts")) return;
      const button = make("button", header.textContent, { type: "button" });
      header.replaceChildren(button);
      button.addEventListener("click", () => sortBy(table, column, header));
    });
  }

  const searchField = (label, onInput) => {
    const name = `find-${++counter}`;
    const box = make("div", "", { class: "find" });
    const input = make("input", "", { type: "search", id: name, autocomplete: "off", spellcheck: "false" });
    const count = make("span", "", { class: "hint", role: "status" });
    box.append(make("label", label, { for: name }), input, count);
    let waiting = 0;
    input.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { count.textContent = onInput(input.value.trim().toLowerCase()); }, 60);
    });
    return box;
  };
  for (const table of all("table[data-filters]")) {
    const rows = [...table.tBodies[0].rows];
    let texts = null;
    const field = searchField("Search", (wanted) => {
      texts ??= rows.map((row) => row.textContent.toLowerCase());
      let shown = 0;
      rows.forEach((row, n) => {
        row.hidden = wanted !== "" && !texts[n].includes(wanted);
        shown += !row.hidden;
      });
      return wanted === "" ? "" : `${shown} of ${rows.length}`;
    });
    table.parentElement.before(field);
  }

  // --- the map: what a tile is, zoom, arrow keys -------------------------------------------------
  const LETTER = 6.7;
  const readMap = (svg) => {
    const tall = Number(svg.getAttribute("height"));
    const tiles = all("svg", svg).map((node) => {
      const [name, size, ...rest] = node.querySelector("title").textContent.split("\n");
      const box = ["x", "y", "width", "height"].map((each) => parseFloat(node.getAttribute(each)));
      const layer = node.parentElement.dataset.layer;
      return { node, name, size, where: rest.join(" "), box, home: node.parentElement, tier: !layer, layer };
    });
    return { svg, tall, tiles, steps: [], at: 0 };
  };
  const say = (tile) => [tile.name, tile.size, tile.where].filter(Boolean).join(" · ");
  const place = (map) => {
    const [zx, zy, zw, zh] = map.steps.length ? map.steps[map.steps.length - 1].box : [0, 0, 100, map.tall];
    const wide = map.svg.clientWidth || 1000;
    for (const tile of map.tiles) {
      const [x, y, w, h] = tile.box;
      const now = [(x - zx) / zw * 100, (y - zy) / zh * map.tall, w / zw * 100, h / zh * map.tall];
      const out = now[0] + now[2] < 0.01 || now[0] > 99.99 || now[1] + now[3] < 0.1 || now[1] > map.tall - 0.1;
      tile.out = out;
      tile.now = now;
      tile.node.style.display = out ? "none" : "";
      if (out) continue;
      ["x", "y", "width", "height"].forEach((each, n) =>
        tile.node.setAttribute(each, n % 2 ? now[n].toFixed(1) : `${now[n].toFixed(3)}%`));
      label(tile, now[2] / 100 * wide, now[3]);
    }
  };
  const SVG = "http://www.w3.org/2000/svg";
  const write = (node, text, y, kind) => {
    const words = document.createElementNS(SVG, "text");
    words.setAttribute("x", 5);
    words.setAttribute("y", y);
    if (kind) words.setAttribute("class", kind);
    words.textContent = text;
    node.append(words);
  };
  const label = (tile, width, height) => {
    if (tile.tier) return;
    for (const text of all("text", tile.node)) text.remove();
    const fits = Math.floor((width - 10) / LETTER);
    if (height < 18 || (fits < 5 && tile.name.length > fits)) return;
    write(tile.node, tile.name.length > fits ? `${tile.name.slice(0, fits - 1)}…` : tile.name, 15);
    if (height >= 36 && tile.size.length <= fits) write(tile.node, tile.size, 30, "m");
  };

  const figure = document.getElementById("map");
  if (figure) {
    const maps = all("svg.map", figure).map(readMap);
    const readout = make("p", "", { class: "readout", role: "status" });
    const bar = searchField("Find in the map", (wanted) => {
      let found = 0;
      for (const map of maps) {
        for (const tile of map.tiles) {
          if (tile.tier) continue;
          const hit = wanted === "" || tile.name.toLowerCase().includes(wanted);
          tile.node.classList.toggle("dim", !hit);
          found += hit && map.svg.clientWidth > 0;
        }
      }
      return wanted === "" ? "" : found === 1 ? "1 tile" : `${found} tiles`;
    });
    const back = make("button", "Zoom out", { type: "button", class: "button", disabled: "" });
    const where = make("span", "The whole image", { class: "where", role: "status" });
    bar.append(back, where);
    figure.before(bar);
    figure.after(readout);
    const help = "Select a tile to zoom in. Arrow keys move, Enter zooms in, Escape zooms out.";
    readout.textContent = help;

    const inside = (map, tile) => {
      const members = map.tiles.filter((each) => !each.tier && (tile.tier ? tile.home : each.home) === (tile.tier ? each.home.parentElement : tile.home));
      const edges = members.map(({ box: [x, y, w, h] }) => [x, y, x + w, y + h]);
      const left = Math.min(...edges.map((e) => e[0])), top = Math.min(...edges.map((e) => e[1]));
      return [left, top, Math.max(...edges.map((e) => e[2])) - left, Math.max(...edges.map((e) => e[3])) - top];
    };
    const zoom = (map, tile) => {
      const deep = map.steps.length;
      if (deep >= 2) return;
      const home = tile.tier ? tile.home : tile.home.parentElement;
      const target = deep === 0 && !tile.tier
        ? { box: inside(map, map.tiles.find((each) => each.tier && each.home === home)), name: home.dataset.tier }
        : { box: inside(map, tile), name: tile.tier ? tile.name : `layer ${tile.layer}` };
      map.steps.push(target);
      show(map);
    };
    const out = (map) => {
      if (map.steps.pop()) show(map);
    };
    const show = (map) => {
      place(map);
      back.disabled = map.steps.length === 0;
      where.textContent = map.steps.map((step) => step.name).join(" › ") || "The whole image";
      const tile = map.tiles[map.at];
      if (tile.out || tile.tier) focus(map, map.tiles.findIndex((each) => !each.out && !each.tier), false);
    };
    const focus = (map, at, really = true) => {
      if (at < 0) return;
      map.tiles[map.at].node.setAttribute("tabindex", "-1");
      map.at = at;
      map.tiles[at].node.setAttribute("tabindex", "0");
      if (really) map.tiles[at].node.focus();
    };
    // The next tile is the nearest beyond the edge, rather beside this one than askew of it.
    const step = (map, [dx, dy]) => {
      const wide = map.svg.clientWidth;
      const spans = ([x, y, w, h]) => {
        const across = [x / 100 * wide, (x + w) / 100 * wide], down = [y, y + h];
        return dx ? [across, down] : [down, across];
      };
      const [mine, beside] = spans(map.tiles[map.at].now);
      let best = -1, least = Infinity;
      map.tiles.forEach((tile, n) => {
        if (n === map.at || tile.out || tile.tier) return;
        const [its, other] = spans(tile.now);
        const along = dx + dy > 0 ? its[0] - mine[1] : mine[0] - its[1];
        if (along < -2) return;
        const aside = Math.max(0, other[0] - beside[1], beside[0] - other[1]);
        const askew = Math.abs(other[0] + other[1] - beside[0] - beside[1]) / 2;
        const far = along + 4 * aside + 0.3 * askew;
        if (far < least) { least = far; best = n; }
      });
      focus(map, best);
    };
    const KEYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    back.addEventListener("click", () => {
      for (const map of maps) if (map.svg.clientWidth) out(map);
      if (back.disabled) maps.find((map) => map.svg.clientWidth)?.tiles.find((t) => t.node.tabIndex === 0)?.node.focus();
    });
    for (const map of maps) {
      map.svg.setAttribute("role", "group");
      map.svg.setAttribute("aria-label", `Map of store paths by size. ${help}`);
      map.tiles.forEach((tile, n) => {
        tile.node.setAttribute("role", tile.tier ? "presentation" : "button");
        if (!tile.tier) {
          tile.node.setAttribute("aria-label", [tile.name, tile.size, tile.where].join(", "));
          tile.node.setAttribute("tabindex", "-1");
        }
        const show_ = () => { readout.textContent = say(tile); };
        tile.node.addEventListener("focus", () => { map.at = n; show_(); });
        tile.node.addEventListener("pointerenter", show_);
        tile.node.addEventListener("click", () => { focus(map, tile.tier ? map.at : n); zoom(map, tile); });
      });
      map.at = map.tiles.findIndex((tile) => !tile.tier);
      if (map.at < 0) { map.at = 0; continue; }
      map.tiles[map.at].node.setAttribute("tabindex", "0");
      map.svg.addEventListener("keydown", (event) => {
        if (KEYS[event.key]) step(map, KEYS[event.key]);
        else if (event.key === "Enter" || event.key === " ") zoom(map, map.tiles[map.at]);
        else if (event.key === "Escape") out(map);
        else return;
        event.preventDefault();
      });
    }
    const fit = () => { for (const map of maps) if (map.svg.clientWidth && map.tiles.length) place(map); };
    fit();
    new ResizeObserver(fit).observe(figure);
  }

  // --- the graph: one stop at a time -------------------------------------------------------------
  const walk = document.getElementById("walk");
  if (walk) {
    const stops = all(".stop", walk);
    const list = walk.querySelector("details");
    walk.classList.add("walking");
    list.open = true;
    const status = make("p", "", { class: "sr", role: "status" });
    const bar = searchField("Go to", (wanted) => {
      const hits = wanted === "" ? [] : stops.filter((stop) => stop.querySelector("h4").textContent.toLowerCase().includes(wanted));
      results.replaceChildren(...hits.slice(0, 12).map((stop) => {
        const item = make("li");
        item.append(make("a", stop.querySelector("h4").textContent, { href: `#${stop.id}` }));
        return item;
      }));
      return wanted === "" ? "" : `${hits.length} found`;
    });
    const home = make("a", "Start at the image", { class: "button", href: "#stop-image" });
    const results = make("ul", "", { class: "way" });
    bar.append(home);
    const trail = make("ol", "", { class: "way", "aria-label": "The way from the image" });
    list.before(bar, results, status, trail);
    const byName = new Map(stops.map((stop) => [stop.id, stop]));
    const nameOf = (stop) => (stop === stops[0] ? "the image" : stop.querySelector("h4").textContent);
    const drawTrail = (stop) => {
      const way = [];
      for (let each = stop; each && way.length < 99; each = byName.get(each.dataset.first)) way.unshift(each);
      trail.hidden = way.length < 2;
      trail.replaceChildren(...way.map((each) => {
        const item = make("li");
        const last = each === stop;
        item.append(make("a", nameOf(each), last ? { "aria-current": "true" } : { href: `#${each.id}` }));
        return item;
      }));
    };
    const here = () => {
      const name = decodeURIComponent(location.hash.slice(1));
      const wanted = stops.find((stop) => stop.id === name);
      const stop = wanted ?? stops.find((each) => each.classList.contains("here")) ?? stops[0];
      for (const each of stops) each.classList.toggle("here", each === stop);
      drawTrail(stop);
      if (!wanted) return;
      list.open = true;
      stop.tabIndex = -1;
      stop.focus({ preventScroll: true });
      stop.scrollIntoView({ block: "nearest" });
      status.textContent = stop.querySelector("h4").textContent;
    };
    walk.addEventListener("keydown", (event) => {
      const links = all(".stop.here .side a", walk);
      const at = links.indexOf(document.activeElement);
      const down = event.key === "ArrowDown", up = event.key === "ArrowUp";
      if ((!down && !up) || !links.length || event.target.matches("input")) return;
      links[Math.max(0, Math.min(links.length - 1, at + (down ? 1 : at < 0 ? 1 : -1)))].focus();
      event.preventDefault();
    });
    addEventListener("hashchange", here);
    here();
  }

  // --- which section is being read ---------------------------------------------------------------
  const links = new Map(all("nav a").map((link) => [link.getAttribute("href").slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      const link = links.get(entry.target.id);
      if (!link) continue;
      link.setAttribute("aria-current", "true");
      const list = link.closest("ul");
      list.scrollLeft = link.offsetLeft - list.offsetLeft - 48;
    }
  }, { rootMargin: "-25% 0px -70% 0px" });
  for (const section of all("main > section")) watcher.observe(section);
})();
