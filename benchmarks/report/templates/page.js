"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const percent = (permille) => (permille === null ? "–" : (permille / 10).toFixed(1));
  const arrows = { i2t: "image → text", t2i: "text → image" };

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function draw(name, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  // Theme: the system's, until the button is pressed.
  function kept(key, value) {
    try {
      if (value !== undefined) localStorage.setItem(key, value);
      return localStorage.getItem(key);
    } catch {
      return null; // a page in a sandbox has no storage
    }
  }
  const root = document.documentElement;
  const theme = kept("xshot-theme");
  if (theme) root.dataset.theme = theme;
  byId("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    kept("xshot-theme", root.dataset.theme);
  });

  // Tabs, also by arrow keys and by the address.
  const tabs = all("[role=tab]");
  function open(tab, focus) {
    for (const other of tabs) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
      byId(other.getAttribute("aria-controls")).hidden = !chosen;
    }
    const panel = byId(tab.getAttribute("aria-controls"));
    if (byId("by-shots")) byId("by-shots").hidden = !("byShots" in panel.dataset);
    if (byId("by-rows")) byId("by-rows").hidden = panel.id !== "leaderboard";
    if (focus) tab.focus();
    tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  function openAddressed() {
    open(tabs.find((tab) => "#" + tab.getAttribute("aria-controls") === location.hash) ?? tabs[0]);
  }
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => {
      open(tab);
      try {
        history.replaceState(null, "", "#" + tab.getAttribute("aria-controls"));
      } catch {
        // a page without an address of its own
      }
    });
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) open(tabs[(i + step + tabs.length) % tabs.length], true);
    });
  });
  addEventListener("hashchange", openAddressed);

  // What is chosen in the toolbar.
  const value = (id, otherwise) => (byId(id) ? byId(id).value : otherwise);
  const dataset = () => value("dataset", data.spots.length ? data.spots[0].dataset : "");
  const shots = () => value("shots", data.spots.length ? data.spots[0].shots : "");
  const spot = () => data.spots.find((one) => one.dataset === dataset() && one.shots === shots());
  function choose() {
    for (const element of all("[data-dataset]")) {
      const other = element.dataset.dataset && element.dataset.dataset !== dataset();
      const elsewhere = element.closest("[data-by-shots]") && element.dataset.shots && element.dataset.shots !== shots();
      element.hidden = Boolean(other || elsewhere);
    }
    offer("upright", methods(), best());
    offer("across", methods(), data.baseline);
    offer("example-method", methods(), best());
    plot();
    offerKinds();
    show();
  }
  const methods = () => (spot() ? Object.keys(spot().ap) : []);
  function best() {
    const mean = (ap) => [...ap.i2t, ...ap.t2i].reduce((sum, one) => sum + (one ?? 0), 0);
    return methods().reduce((a, b) => (a !== null && mean(spot().ap[a]) >= mean(spot().ap[b]) ? a : b), null);
  }
  function offer(id, names, preferred) {
    const before = byId(id).value;
    byId(id).replaceChildren(...names.map((name) => make("option", {}, name)));
    byId(id).value = names.includes(before) ? before : names.includes(preferred) ? preferred : (names[0] ?? "");
  }

  // The rows of one X in the leaderboard.
  if (byId("rows")) {
    byId("rows").addEventListener("change", () => {
      const asked = byId("rows").value;
      for (const row of all("#leaderboard tbody tr")) {
        row.hidden = Boolean(asked && row.dataset.shots && row.dataset.shots !== asked);
      }
    });
  }

  // Sorting: a click on a header; what has no value stays last.
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    all("th", table).forEach((header, column) => {
      header.firstElementChild.addEventListener("click", () => {
        const keys = new Map([...body.rows].map((row) => [row, row.cells[column].dataset.key]));
        const numeric = [...keys.values()].every((key) => key === "" || Number.isFinite(Number(key)));
        const before = header.getAttribute("aria-sort");
        const down = before ? before === "ascending" : numeric && !["X"].includes(header.textContent);
        all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", down ? "descending" : "ascending");
        const order = (a, b) => {
          const [p, q] = [keys.get(a), keys.get(b)];
          if (p === "" || q === "") return (p === "") - (q === "");
          return (numeric ? p - q : p.localeCompare(q)) * (down ? -1 : 1);
        };
        const rows = [...body.rows].sort(order);
        rows.forEach((row, i) => {
          const parted = header.textContent === "X" && i > 0 && rows[i - 1].dataset.shots !== row.dataset.shots;
          row.classList.toggle("starts", parted);
        });
        body.append(...rows);
      });
    });
  }

  // An item as a tile: its picture, text and class.
  function tile(number, right) {
    const item = data.items[number];
    const element = make("div", { class: "tile", title: `${item.text || item.id} (${item.class ?? "class unknown"})` });
    const picture = data.pictures[number];
    if (picture) element.append(make("img", { src: picture, alt: item.text || item.id }));
    element.append(make("div", { class: "text" }, item.text || item.id));
    if (item.class) element.append(make("div", { class: "class" }, item.class));
    if (right !== undefined) {
      element.classList.add(right ? "right" : "wrong");
      const badge = make("span", { class: "badge", role: "img", "aria-label": right ? "relevant" : "not relevant" });
      badge.append(right ? "✓" : "✗");
      element.append(badge);
    }
    return element;
  }
  function named(method) {
    const look = data.looks[method];
    const mark = draw("svg", { class: "mark", style: `color:var(${look.colour})`, "aria-hidden": "true" });
    mark.append(draw("use", { href: `#mark-${look.shape}` }));
    return [mark, make("b", {}, method)];
  }

  // The scatter of two methods.
  const left = 52, top = 12, side = 460;
  const across = (permille) => left + (side * permille) / 1000;
  const upward = (permille) => top + side - (side * permille) / 1000;
  let points = [];
  function plot() {
    const svg = byId("scatter");
    svg.replaceChildren();
    byId("point").replaceChildren();
    points = [];
    const place = spot();
    if (!place) return;
    const [x, y] = [byId("across").value, byId("upright").value];
    for (let at = 0; at <= 1000; at += 200) {
      svg.append(draw("line", { class: "frame", x1: left, x2: left + side, y1: upward(at), y2: upward(at) }));
      svg.append(draw("line", { class: "frame", y1: top, y2: top + side, x1: across(at), x2: across(at) }));
      svg.append(draw("text", { x: across(at), y: top + side + 18, "text-anchor": "middle" }, at / 10));
      svg.append(draw("text", { x: left - 8, y: upward(at) + 4, "text-anchor": "end" }, at / 10));
    }
    svg.append(draw("line", { class: "equal", x1: left, y1: top + side, x2: left + side, y2: top }));
    svg.append(draw("text", { x: left + side / 2, y: top + side + 40, "text-anchor": "middle" }, `AP of ${x}, %`));
    const label = { transform: `translate(14 ${top + side / 2}) rotate(-90)`, "text-anchor": "middle" };
    svg.append(draw("text", label, `AP of ${y}, %`));
    for (const direction of byId("scatter-direction").value ? [byId("scatter-direction").value] : ["i2t", "t2i"]) {
      place.queries.forEach((query, i) => {
        const [a, b] = [place.ap[x][direction][i], place.ap[y][direction][i]];
        if (a === null || b === null) return;
        points.push({ cx: across(a), cy: upward(b), query, class: place.classes[i], direction, a, b });
      });
    }
    const style = `fill:var(${data.looks[y].colour})`;
    for (const { cx, cy } of points) svg.append(draw("circle", { class: "dot", cx, cy, r: 4, style }));
    const counts = [points.filter((p) => p.b > p.a).length, points.filter((p) => p.b < p.a).length];
    byId("point").append(
      make("p", {}, ...named(y), ` is better on ${counts[0]} of ${points.length} queries, worse on ${counts[1]}.`),
      make("p", { class: "aside" }, "Point at a query to see it."),
    );
  }
  function look(event) {
    const svg = byId("scatter");
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    let near = null;
    for (const point of points) {
      const distance = Math.hypot(point.cx - at.x, point.cy - at.y);
      if (distance < (near ? near.distance : 30)) near = { point, distance };
    }
    if (!near) return;
    const { point } = near;
    all(".chosen", svg).forEach((ring) => ring.remove());
    svg.append(draw("circle", { class: "chosen", cx: point.cx, cy: point.cy, r: 7 }));
    const shown = tile(point.query);
    if (!data.items[point.query].class) shown.append(make("div", { class: "class" }, point.class));
    byId("point").replaceChildren(
      make("p", { class: "aside" }, arrows[point.direction]),
      shown,
      make("p", {}, ...named(byId("upright").value), ` AP ${percent(point.b)}`),
      make("p", {}, ...named(byId("across").value), ` AP ${percent(point.a)}`),
    );
  }
  byId("scatter").addEventListener("pointermove", look);
  byId("scatter").addEventListener("click", look);
  for (const id of ["upright", "across", "scatter-direction"]) byId(id).addEventListener("change", plot);

  // Retrieval examples.
  const example = () => (spot() ? spot().examples[byId("example-method").value] : undefined);
  function offerKinds() {
    const before = byId("example-kind").value;
    const baseline = example() ? example().baseline : "";
    const kinds = { worst: "answered worst" };
    if (baseline) Object.assign(kinds, { gained: `gained most on ${baseline}`, lost: `lost most to ${baseline}` });
    const options = Object.entries(kinds).map(([kind, words]) => make("option", { value: kind }, words));
    byId("example-kind").replaceChildren(...options);
    byId("example-kind").value = before in kinds ? before : "worst";
  }
  function show() {
    const list = byId("example-list");
    list.replaceChildren();
    const found = example();
    if (!found) return;
    const [method, direction] = [byId("example-method").value, byId("example-direction").value];
    const draw = spot().draw[method];
    byId("example-note").textContent =
      `AP is the mean over the draws; what stands first is that of draw ${draw}. ✓ is relevant, ✗ is not.`;
    for (const one of found[direction][byId("example-kind").value]) {
      const asked = make("div", { class: "example" }, tile(one.query));
      const rows = make("div", { class: "found" });
      for (const name of found.baseline ? [method, found.baseline] : [method]) {
        const strip = make("div", { class: `strip ${direction === "i2t" ? "texts" : "pictures"}` });
        one.first[name].forEach((number, i) => strip.append(tile(number, one.right[name][i] === 1)));
        rows.append(make("div", { class: "found" }, make("p", {}, ...named(name), ` AP ${percent(one.ap[name])}`), strip));
      }
      asked.append(rows);
      list.append(asked);
    }
    if (!list.children.length) list.append(make("p", { class: "aside" }, "There is no such query."));
  }
  byId("example-method").addEventListener("change", () => {
    offerKinds();
    show();
  });
  for (const id of ["example-direction", "example-kind"]) byId(id).addEventListener("change", show);

  // Commands to the clipboard; where that is not allowed they are selected.
  for (const button of all("button.copy")) {
    button.addEventListener("click", async () => {
      const code = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1500);
      } catch {
        getSelection().selectAllChildren(code);
      }
    });
  }

  for (const id of ["dataset", "shots"]) if (byId(id)) byId(id).addEventListener("change", choose);
  openAddressed();
  choose();
})();
