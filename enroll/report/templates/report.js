"use strict";
// Draws the rows of a report on demand. The facts come as JSON, the rows as deflated JSON, each
// a block of columns, and the pictures as Base64, a hundred in a block. Texts from outside only
// ever become text nodes. The filters are in the part of the address behind the #.
(() => {
  const PAGE = 50, CARDS = 48, PAIRS = 12, TWINS = 20, PRINTED = 1000;
  const NO_PHOTO = 1, WITHHELD = 2; // of a face in a pair
  const byId = (id) => document.getElementById(id);
  const facts = JSON.parse(byId("facts").textContent);
  const t = facts.text;
  const numbers = new Intl.NumberFormat(facts.language);
  const say = (text, values) =>
    text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));

  // ---- what the file holds
  const rows = {};
  for (const name of facts.columns) rows[name] = [];
  let pairs = [], twins = [], count = 0, hay = [], shown = new Uint8Array(0), matching = new Uint32Array(0);
  const state = { q: "", group: "", status: "", reason: "", sort: "", page: 1, open: [] };

  async function unpacked(node) {
    const text = node.textContent;
    node.remove();
    let bytes;
    if (Uint8Array.fromBase64) bytes = Uint8Array.fromBase64(text);
    else {
      const plain = atob(text);
      bytes = new Uint8Array(plain.length);
      for (let i = 0; i < plain.length; i++) bytes[i] = plain.charCodeAt(i);
    }
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  async function read() {
    const blocks = await Promise.all([...document.querySelectorAll("script.rows")].map(unpacked));
    for (const block of blocks)
      for (const name of facts.columns) {
        const into = rows[name];
        for (const value of block[name]) into.push(value);
      }
    const faces = document.querySelector("script.pairs");
    if (faces) pairs = await unpacked(faces);
    for (const one of pairs.flat())
      one.text = folded(one.sides.map((side) => side.slice(0, 3).join("\n")).join("\n"));
    const same = document.querySelector("script.same");
    if (same) twins = await unpacked(same);
    count = rows.id.length;
    shown = new Uint8Array(count);
    hay = new Array(count);
    for (let i = 0; i < count; i++)
      hay[i] = folded(`${rows.id[i]}\n${rows.data[i]}\n${rows.path[i]}\n${rows.message[i]}`);
  }

  function folded(text) {
    const low = text.toLowerCase();
    return /^[\x00-\x7f]*$/.test(low) ? low : low.normalize("NFKD").replace(/\p{M}/gu, "");
  }

  // ---- elements
  function make(tag, name, text) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) { made.textContent = text; made.dir = "auto"; }
    return made;
  }

  const pictures = new Map();
  function picture(place) {
    const block = Math.floor(place / facts.perBlock);
    if (!pictures.has(block)) {
      const node = byId(`pictures-${block}`);
      if (!node) return null; // the file is still being read
      pictures.set(block, node.textContent.split(","));
    }
    return pictures.get(block)[place % facts.perBlock];
  }

  function photo(place, alt) {
    if (place >= 0) {
      const made = make("img", "photo");
      made.alt = alt;
      made.decoding = "async";
      const content = picture(place);
      if (content) made.src = `data:${facts.pictureType};base64,${content}`;
      else document.addEventListener("DOMContentLoaded", () => {
        made.src = `data:${facts.pictureType};base64,${picture(place)}`;
      });
      return made;
    }
    const why = place === -1 ? "" : facts.faults[-2 - place];
    return make("div", "photo none", why || t.no_picture);
  }

  const line = (i) => (rows.line[i] ? `${t.line} ${numbers.format(rows.line[i])}` : "");

  function card(i) {
    const made = make("li", "card");
    const texts = make("div");
    texts.append(make("p", "who", rows.id[i]));
    if (rows.data[i]) texts.append(make("p", "", rows.data[i]));
    if (rows.path[i]) texts.append(make("p", "path", rows.path[i]));
    const more = [line(i), facts.by ? facts.groups[rows.group[i]] || t.no_value : ""];
    if (more.some(Boolean)) texts.append(make("p", "note", more.filter(Boolean).join(" · ")));
    if (rows.message[i]) texts.append(make("p", "note", rows.message[i]));
    made.append(photo(rows.picture[i], ""), texts);
    return made;
  }

  // ---- groups of rows that need a person
  const groups = [...document.querySelectorAll(".reason.rows")].map((node, place) => ({
    node, place, code: facts.reasons[place].code, from: facts.reasons[place].from,
    to: facts.reasons[place].to, details: node.querySelector("details"),
    list: node.querySelector(".cards"), more: node.querySelector(".more"),
    note: node.querySelector(".shown"), number: node.querySelector(".number b"), drawn: 0, rows: [],
  }));

  function drawCards(group, most) {
    const part = document.createDocumentFragment();
    const until = Math.min(group.drawn + most, group.rows.length);
    for (; group.drawn < until; group.drawn++) part.append(card(group.rows[group.drawn]));
    group.list.append(part);
    const left = group.rows.length - group.drawn;
    group.more.hidden = !left;
    group.more.textContent = say(t.more, { count: numbers.format(Math.min(left, CARDS * 4)) });
    group.note.textContent = left
      ? say(t.shown_of, { shown: numbers.format(group.drawn), count: numbers.format(group.rows.length) })
      : "";
  }

  function drawGroups(narrowed) {
    for (const group of groups) {
      group.rows = [];
      for (let i = group.from; i < group.to; i++) if (shown[i]) group.rows.push(i);
      group.number.textContent = numbers.format(narrowed ? group.rows.length : facts.reasons[group.place].count);
      group.node.hidden = narrowed && !group.rows.length;
      group.list.replaceChildren();
      group.drawn = 0;
      group.details.open = state.open.includes(group.code);
      if (group.details.open) drawCards(group, CARDS);
    }
  }

  for (const group of groups) {
    group.details.addEventListener("toggle", () => {
      const open = group.details.open;
      if (open && !group.drawn) drawCards(group, CARDS);
      if (open !== state.open.includes(group.code)) {
        state.open = state.open.filter((code) => code !== group.code);
        if (open) state.open.push(group.code);
        remember();
      }
    });
    group.more.addEventListener("click", () => {
      const first = group.drawn;
      drawCards(group, CARDS * 4);
      const next = group.list.children[first];
      if (next && group.more.hidden) { next.tabIndex = -1; next.focus({ preventScroll: true }); }
    });
  }

  // ---- pairs of faces
  const pairGroups = [...document.querySelectorAll(".reason.faces")].map((node, place) => ({
    node, place, list: node.querySelector(".pairs"), more: node.querySelector(".more"),
    note: node.querySelector(".shown"), number: node.querySelector(".number b"), drawn: 0, pairs: [],
  }));
  const scores = new Intl.NumberFormat(facts.language, { maximumFractionDigits: 2 });
  const both = new Intl.ListFormat(facts.language, { type: "conjunction" });

  function face([id, data, path, number, group, place, kind, status, misplaced]) {
    const made = make("figure", "face");
    if (kind === WITHHELD || !id) {
      made.append(make("div", "photo none", kind === WITHHELD ? t.pair_withheld : t.pair_nobody));
      return made;
    }
    const texts = make("figcaption");
    texts.append(make("p", "who", id));
    if (status) texts.append(make("span", `chip ${status}`, facts.statusWords[status]));
    if (misplaced) texts.append(make("span", "chip failed", t.pair_misplaced));
    if (data) texts.append(make("p", "", data));
    if (path) texts.append(make("p", "path", path));
    const listed = group === null ? (facts.ledgerOnly ? "" : t.pair_not_listed) : facts.by ? group || t.no_value : "";
    const more = [number ? `${t.line} ${numbers.format(number)}` : "", listed].filter(Boolean);
    if (more.length) texts.append(make("p", "note", more.join(" · ")));
    made.append(kind === NO_PHOTO ? make("div", "photo none", t.pair_no_photo) : photo(place, ""), texts);
    return made;
  }

  function commandLine(label, command) {
    const made = make("div");
    const line = make("dd");
    const button = make("button", "quiet copy", t.copy);
    button.type = "button";
    line.append(make("code", "", command), button);
    copying(button);
    made.append(make("dt", "", label), line);
    return made;
  }

  function pairCard(one) {
    const made = make("li", "pair");
    const found = both.format(one.scores.map((score) => scores.format(score)));
    const sides = make("div", "sides");
    sides.append(...one.sides.map(face));
    made.append(make("p", "score", found ? say(t.score, { score: found }) : t.no_score), sides);
    if (one.accept || one.remove.length) {
      const details = make("details");
      const list = make("dl", "commands");
      for (const [id, command] of one.remove) list.append(commandLine(say(t.pair_remove, { id }), command));
      if (one.accept) list.append(commandLine(t.pair_accept, one.accept));
      details.append(make("summary", "", t.pair_commands), list);
      made.append(details);
    }
    return made;
  }

  function drawPairs(group, most) {
    const until = Math.min(group.drawn + most, group.pairs.length);
    group.list.append(...group.pairs.slice(group.drawn, until).map(pairCard));
    group.drawn = until;
    const left = group.pairs.length - group.drawn;
    group.more.hidden = !left;
    group.more.textContent = say(t.more, { count: numbers.format(Math.min(left, PAIRS * 4)) });
    group.note.textContent = left
      ? say(t.shown_of, { shown: numbers.format(group.drawn), count: numbers.format(group.pairs.length) })
      : "";
  }

  function filterPairs(words) {
    const name = state.group === "" ? null : facts.groups[Number(state.group)];
    const narrowed = words.length > 0 || name !== null;
    for (const group of pairGroups) {
      group.pairs = (pairs[group.place] || []).filter((one) => {
        if (name !== null && !one.sides.some((side) => side[4] === name)) return false;
        return words.every((word) => one.text.includes(word));
      });
      group.number.textContent = numbers.format(narrowed ? group.pairs.length : facts.pairs[group.place]);
      group.node.hidden = narrowed && !group.pairs.length;
      group.list.replaceChildren();
      group.drawn = 0;
      drawPairs(group, PAIRS);
    }
  }

  for (const group of pairGroups)
    group.more.addEventListener("click", () => {
      const first = group.drawn;
      drawPairs(group, PAIRS * 4);
      const next = group.list.children[first];
      if (next && group.more.hidden) { next.tabIndex = -1; next.focus({ preventScroll: true }); }
    });

  // ---- identical photos
  let twinsDrawn = 0, twinsMatching = [];
  function drawTwins(most) {
    const list = byId("twins");
    if (!list) return;
    const until = Math.min(twinsDrawn + most, twinsMatching.length);
    for (; twinsDrawn < until; twinsDrawn++) {
      const one = twinsMatching[twinsDrawn];
      const made = make("li", "twin");
      const people = make("ul");
      for (const [id, data, path, number] of one.people) {
        const person = make("li");
        person.append(make("p", "who", id));
        if (data) person.append(make("p", "", data));
        const where = number ? `${path} · ${t.line} ${numbers.format(number)}` : path;
        person.append(make("p", "hint", where));
        people.append(person);
      }
      if (one.count > one.people.length)
        people.append(make("li", "hint", say(t.same_rest, { count: numbers.format(one.count - one.people.length) })));
      made.append(photo(one.picture, ""), people);
      list.append(made);
    }
    const left = twinsMatching.length - twinsDrawn;
    byId("more-twins").hidden = !left;
    byId("more-twins").textContent = say(t.more, { count: numbers.format(Math.min(left, TWINS * 5)) });
  }

  function filterTwins(words) {
    const list = byId("twins");
    if (!list) return;
    twinsMatching = twins.filter((one) => {
      const text = folded(one.people.map((person) => person.slice(0, 3).join("\n")).join("\n"));
      return words.every((word) => text.includes(word)) &&
        (state.group === "" || one.people.some((person) => String(person[4]) === state.group));
    });
    list.replaceChildren(...(twinsMatching.length ? [] : [make("li", "hint", t.none_match)]));
    twinsDrawn = 0;
    drawTwins(TWINS);
  }

  // ---- the table
  const columns = [
    { name: "photo", label: t.photo },
    { name: "id", label: t.id, key: natural },
    { name: "data", label: t.name, key: folded },
    ...(facts.by ? [{ name: "group", label: facts.by, rank: (i) => rows.group[i] }] : []),
    { name: "status", label: t.status, rank: (i) => rows.status[i] },
    { name: "reason", label: t.reason, rank: (i) => rows.reason[i] },
    { name: "path", label: t.path, key: natural },
    ...(facts.edits.length > 1 ? [{ name: "edits", label: t.done, rank: (i) => rows.edits[i] }] : []),
    { name: "at", label: t.enrolled_at, rank: (i) => rows.at[i] },
    { name: "line", label: t.line, rank: (i) => rows.line[i] },
  ];
  if (facts.ledgerOnly) columns.pop();
  const orders = new Map();

  // "E9" comes before "E10": digits are compared by their length first.
  function natural(text) {
    const low = folded(text);
    return low.replace(/0*(\d+)/g, (_, digits) => String.fromCharCode(96 + digits.length) + digits);
  }

  function order(name) {
    if (orders.has(name)) return orders.get(name);
    const { key, rank } = columns.find((column) => column.name === name);
    const places = new Uint32Array(count).map((_, i) => i);
    if (rank) {
      const ranks = Float64Array.from(places, rank);
      places.sort((one, two) => ranks[one] - ranks[two] || one - two);
    } else {
      const keys = rows[name].map(key);
      places.sort((one, two) => (keys[one] < keys[two] ? -1 : keys[one] > keys[two] ? 1 : one - two));
    }
    orders.set(name, places);
    return places;
  }

  function drawHead() {
    const head = document.querySelector("#entries thead tr");
    head.replaceChildren(...columns.map((column) => {
      const made = make("th");
      made.scope = "col";
      if (!column.key && !column.rank) { made.append(make("span", "", column.label)); return made; }
      const button = make("button", "", column.label);
      button.type = "button";
      button.addEventListener("click", () => {
        state.sort = state.sort === column.name ? `-${column.name}` : state.sort === `-${column.name}` ? "" : column.name;
        state.page = 1;
        drawTable();
        remember();
      });
      made.append(button);
      made.dataset.name = column.name;
      return made;
    }));
  }

  function match() {
    const status = state.status === "" ? -1 : facts.statuses.findIndex((one) => one.name === state.status);
    const reason = state.reason === "" ? -1 : facts.reasons.findIndex((one) => one.code === state.reason);
    const down = state.sort.startsWith("-");
    const sorted = state.sort ? order(state.sort.replace("-", "")) : null;
    const found = new Uint32Array(count);
    let size = 0;
    for (let place = 0; place < count; place++) {
      const i = sorted ? sorted[down ? count - 1 - place : place] : place;
      if (shown[i] && (status < 0 || rows.status[i] === status) && (reason < 0 || rows.reason[i] === reason))
        found[size++] = i;
    }
    matching = found.subarray(0, size);
  }

  function tableRow(i, place) {
    const made = make("tr");
    made.setAttribute("aria-rowindex", place + 2);
    const cell = (name, text) => { const td = make("td", name, text); made.append(td); return td; };
    cell("").append(photo(rows.picture[i], ""));
    cell("id", rows.id[i]);
    cell("text", rows.data[i]);
    if (facts.by) cell("", facts.groups[rows.group[i]] || t.no_value);
    const status = facts.statuses[rows.status[i]];
    cell("").append(make("span", `chip ${status.name}`, status.words));
    const reason = rows.reason[i] < 0 ? "" : facts.reasons[rows.reason[i]].title;
    const details = cell("small why", reason);
    if (rows.message[i]) details.append(make("br"), make("span", "", rows.message[i]));
    cell("small path", rows.path[i]);
    if (facts.edits.length > 1) cell("small", facts.edits[rows.edits[i]]);
    cell("small", rows.at[i] ? new Date(rows.at[i] * 1000).toLocaleString(facts.language, { dateStyle: "medium", timeStyle: "short" }) : "");
    if (!facts.ledgerOnly) cell("n", rows.line[i] ? numbers.format(rows.line[i]) : "");
    return made;
  }

  function drawTable(most = PAGE) {
    match();
    const pages = Math.max(Math.ceil(matching.length / PAGE), 1);
    state.page = Math.min(Math.max(state.page, 1), pages);
    const from = (state.page - 1) * PAGE;
    const part = Array.from(matching.subarray(from, from + most), (i, place) => tableRow(i, from + place));
    if (!part.length) {
      const none = make("tr");
      const cell = make("td", "empty", t.none_match);
      cell.colSpan = columns.length;
      none.append(cell);
      part.push(none);
    }
    const table = byId("entries");
    table.tBodies[0].replaceChildren(...part);
    table.setAttribute("aria-rowcount", matching.length + 1);
    for (const head of table.tHead.rows[0].cells) {
      const name = head.dataset.name;
      if (name && state.sort === name) head.setAttribute("aria-sort", "ascending");
      else if (name && state.sort === `-${name}`) head.setAttribute("aria-sort", "descending");
      else head.removeAttribute("aria-sort");
    }
    byId("matches").textContent = matching.length === 1 ? t.match : say(t.matches, { count: numbers.format(matching.length) });
    byId("pages").hidden = pages < 2;
    byId("page").value = state.page;
    byId("page").max = pages;
    byId("of-pages").textContent = say(t.of_pages, { count: numbers.format(pages) });
    for (const button of byId("pages").querySelectorAll("button")) {
      const back = button.dataset.go === "first" || button.dataset.go === "previous";
      button.disabled = back ? state.page <= 1 : state.page >= pages;
    }
  }

  // ---- filters, and the address
  function copying(button) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.previousElementSibling;
      getSelection().selectAllChildren(code);
      try { await navigator.clipboard.writeText(code.textContent); } catch { document.execCommand("copy"); }
      button.textContent = t.copied;
      setTimeout(() => { button.textContent = t.copy; }, 2000);
    });
  }

  function filter() {
    const words = folded(state.q).split(/\s+/).filter(Boolean);
    const group = state.group === "" ? -1 : Number(state.group);
    for (let i = 0; i < count; i++) {
      let fits = group < 0 || rows.group[i] === group;
      for (let w = 0; fits && w < words.length; w++) fits = hay[i].includes(words[w]);
      shown[i] = fits ? 1 : 0;
    }
    drawGroups(words.length > 0 || group >= 0);
    filterPairs(words);
    filterTwins(words);
    drawTable();
    byId("clear").disabled = !(state.q || state.group || state.status || state.reason || state.sort);
  }

  function remember() {
    const parts = new URLSearchParams();
    for (const name of ["q", "status", "reason", "sort"]) if (state[name]) parts.set(name, state[name]);
    if (state.group !== "") parts.set("group", facts.groups[Number(state.group)]);
    if (state.page > 1) parts.set("page", state.page);
    if (state.open.length) parts.set("open", state.open.join(","));
    const text = parts.toString();
    try { history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search); } catch { /* some viewers forbid it */ }
    byId("clear").disabled = !(state.q || state.group || state.status || state.reason || state.sort);
  }

  function recall() {
    const text = location.hash.slice(1);
    if (text && !text.includes("=")) return false; // a link to a section
    const parts = new URLSearchParams(text);
    for (const name of ["q", "status", "reason", "sort"]) state[name] = parts.get(name) || "";
    if (!facts.statuses.some((one) => one.name === state.status)) state.status = "";
    if (!facts.reasons.some((one) => one.code === state.reason)) state.reason = "";
    if (!columns.some((one) => one.name === state.sort.replace("-", "") && (one.key || one.rank))) state.sort = "";
    const place = parts.has("group") ? facts.groups.indexOf(parts.get("group")) : -1;
    state.group = place < 0 ? "" : String(place);
    state.page = Number.parseInt(parts.get("page"), 10) || 1;
    state.open = (parts.get("open") || "").split(",").filter(Boolean);
    if (!state.open.length && !text && facts.openAll) state.open = facts.reasons.map((one) => one.code);
    return true;
  }

  function fillIn() {
    for (const name of ["q", "group", "status", "reason"]) if (byId(name)) byId(name).value = state[name];
  }

  function listen() {
    const change = (name, redraw) => byId(name)?.addEventListener("input", (event) => {
      state[name] = event.target.value;
      state.page = 1;
      redraw();
      remember();
    });
    change("q", filter);
    change("group", filter);
    change("status", drawTable.bind(null, PAGE));
    change("reason", drawTable.bind(null, PAGE));
    for (const form of ["filters", "toolbar"]) byId(form).addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("reset", () => {
      Object.assign(state, { q: "", group: "", status: "", reason: "", sort: "", page: 1 });
      fillIn();
      filter();
      remember();
      byId("q").focus();
    });
    byId("pages").addEventListener("click", (event) => {
      const go = event.target.dataset.go;
      if (!go) return;
      const last = Math.ceil(matching.length / PAGE);
      state.page = { first: 1, previous: state.page - 1, next: state.page + 1, last }[go];
      drawTable();
      remember();
      byId("table").scrollIntoView();
    });
    byId("page").addEventListener("change", (event) => {
      state.page = Number.parseInt(event.target.value, 10) || 1;
      drawTable();
      remember();
    });
    byId("more-twins")?.addEventListener("click", () => drawTwins(TWINS * 5));
    for (const button of document.querySelectorAll(".pick")) {
      button.disabled = false;
      button.addEventListener("click", () => {
        state.group = state.group === button.dataset.group ? "" : button.dataset.group;
        state.page = 1;
        fillIn();
        filter();
        remember();
        (byId("attention") || byId("faces") || byId("table")).scrollIntoView();
      });
    }
    for (const link of document.querySelectorAll(".jump a, .to-faces, .skip"))
      link.addEventListener("click", (event) => {
        const target = byId(link.getAttribute("href").slice(1));
        event.preventDefault(); // the address keeps the filters
        target.scrollIntoView();
        target.focus({ preventScroll: true });
      });
    for (const button of document.querySelectorAll(".copy[hidden]")) copying(button);
    addEventListener("hashchange", () => { if (recall()) { fillIn(); filter(); } });
    addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
      event.preventDefault();
      byId("q").focus();
    });
  }

  // ---- print, and colours
  function notePrinted(group, size) {
    if (size > group.drawn)
      group.note.textContent = say(t.printed_part, { shown: numbers.format(group.drawn), count: numbers.format(size) });
  }

  function listenToPrinter() {
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = groups.filter((group) => !group.details.open && !group.node.hidden);
      for (const group of groups) {
        group.details.open = true;
        if (group.drawn < PRINTED) drawCards(group, PRINTED - group.drawn);
      }
      for (const group of pairGroups) if (group.drawn < PRINTED) drawPairs(group, PRINTED - group.drawn);
      drawTable(PRINTED);
      const cut = matching.length > PRINTED;
      document.querySelector(".printed").textContent = cut
        ? say(t.printed_part, { shown: numbers.format(PRINTED), count: numbers.format(matching.length) }) : "";
      for (const group of groups) notePrinted(group, group.rows.length);
      for (const group of pairGroups) notePrinted(group, group.pairs.length);
    });
    addEventListener("afterprint", () => {
      for (const group of opened) group.details.open = false;
      document.querySelector(".printed").textContent = "";
      filter();
    });
    byId("print").addEventListener("click", () => print());
    byId("print").hidden = false;
  }

  function chooseColours() {
    const button = byId("theme"), root = document.documentElement;
    const asSystem = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : asSystem.matches);
    const label = () => { button.textContent = isDark() ? t.light : t.dark; };
    try { const kept = localStorage.getItem("enroll-report-theme"); if (kept === "dark" || kept === "light") root.dataset.theme = kept; } catch { /* not kept */ }
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("enroll-report-theme", root.dataset.theme); } catch { /* not kept */ }
      label();
    });
    asSystem.addEventListener("change", label);
    label();
    button.hidden = false;
  }

  chooseColours();
  read().then(() => {
    drawHead();
    recall();
    fillIn();
    filter();
    listen();
    listenToPrinter();
    byId("loading").remove();
    for (const id of ["filters", "toolbar"]) byId(id).hidden = false;
    document.documentElement.dataset.ready = Math.round(performance.now());
    // Orders are found while nothing else is to be done, so that the first click is answered at once.
    const idle = window.requestIdleCallback || ((task) => setTimeout(task, 200));
    const waiting = columns.filter((column) => column.key || column.rank).map((column) => column.name);
    const next = () => { if (waiting.length) { order(waiting.shift()); idle(next); } else document.documentElement.dataset.sorted = "1"; };
    idle(next);
  }).catch((error) => {
    byId("loading").textContent = t.broken;
    throw error;
  });
})();
