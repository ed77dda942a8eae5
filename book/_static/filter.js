/* Tables of class "filterable": one bar for all of a page's, with a text, the labels in them, and the rows shown as CSV; heads sort.
   Cards of class "question": the reader decides before the answer opens. Without scripts everything stands open to be read. */
document.addEventListener("DOMContentLoaded", () => {
  const make = (name, className, text = "") => Object.assign(document.createElement(name), {className, textContent: text});
  const said = (cell) => cell.textContent.replace(/\s+/g, " ").trim();

  const filterTables = (tables) => {
    const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
    const labelsOf = new Map(rows.map((row) => [row, new Set([...row.querySelectorAll(".sd-badge")].map(said))]));
    const labels = [...new Set([...labelsOf.values()].flatMap((found) => [...found]))];
    const bar = make("div", "filter-bar");
    const search = Object.assign(make("input", "filter-text"), {type: "search", placeholder: "Filter by text"});
    search.setAttribute("aria-label", "Filter the rows by text");
    const count = make("span", "filter-count");
    count.setAttribute("role", "status");
    const chips = labels.map((label) => {
      const chip = Object.assign(make("button", "filter-chip", label), {type: "button"});
      chip.setAttribute("aria-pressed", "false");
      chip.onclick = () => { chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") !== "true"); show(); };
      return chip;
    });
    const csv = Object.assign(make("button", "filter-csv", "Rows shown as CSV"), {type: "button"});
    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.textContent);
      for (const row of rows) {
        const text = said(row).toLowerCase();
        row.hidden = !(words.every((word) => text.includes(word)) && (!wanted.length || wanted.some((w) => labelsOf.get(row).has(w))));
      }
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };
    csv.onclick = () => {
      const quoted = (cells) => cells.map((cell) => `"${said(cell).replaceAll('"', '""')}"`).join(",");
      const lines = [quoted([...tables[0].tHead.rows[0].cells]), ...rows.filter((row) => !row.hidden).map((row) => quoted([...row.cells]))];
      const link = Object.assign(document.createElement("a"), {download: `${location.pathname.split("/").pop().replace(".html", "")}.csv`});
      link.href = URL.createObjectURL(new Blob([lines.join("\r\n")], {type: "text/csv"}));
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    };
    search.oninput = show;
    bar.append(search, ...chips, count, csv);
    const first = tables[0].closest(".pst-scrollable-table-container") ?? tables[0];
    (tables.length > 1 && first.closest("section") || first).before(bar);
    tables.forEach(sortable);
    show();
  };

  const sortable = (table) => [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = Object.assign(make("button", "sort"), {type: "button", title: "Sort the rows by this"});
    button.append(...head.childNodes);
    head.append(button);
    const value = (row) => said(row.cells[column]);
    const number = (text) => { const found = text.replaceAll(",", "").match(/-?\d+(\.\d+)?/); return found ? +found[0] : NaN; };
    button.onclick = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const all = [...table.tBodies[0].rows];
      const counted = all.every((row) => /^(-|[<>≤≥]? ?-?[\d.,]+.*|at (least|most) .*)$/.test(value(row)) || !value(row));
      const order = (a, b) => counted
        ? (number(value(a)) - number(value(b)) || isNaN(number(value(a))) - isNaN(number(value(b))) || 0)
        : value(a).localeCompare(value(b), "en", {numeric: true});
      all.sort((a, b) => (down ? -1 : 1) * order(a, b)).forEach((row) => table.tBodies[0].append(row));
    };
  });

  const askQuestions = (cards) => {
    const found = {right: 0, of: 0};
    const bar = make("div", "filter-bar");
    const score = make("span", "filter-count", `${cards.length} statements`);
    score.setAttribute("role", "status");
    const all = Object.assign(make("button", "filter-csv", "Show all answers"), {type: "button"});
    const isOpen = () => cards.every((card) => card.querySelector("details").open);
    const name = () => { all.textContent = isOpen() ? "Hide all answers" : "Show all answers"; };
    all.onclick = () => {
      const open = !isOpen();
      cards.forEach((card) => { card.querySelector("details").open = open; });
      name();
    };
    bar.append(score, all);
    (cards[0].closest("section") ?? cards[0]).before(bar);
    for (const card of cards) {
      const details = card.querySelector("details"), verdict = said(details.querySelector(".sd-badge"));
      const choice = make("div", "choice");
      for (const word of ["true", "half true", "false"]) {
        const button = Object.assign(make("button", "filter-chip", word), {type: "button"});
        button.onclick = () => {
          if (choice.dataset.chosen) return;
          choice.dataset.chosen = word;
          button.classList.add(word === verdict ? "right" : "wrong");
          button.append(word === verdict ? " ✓" : " ✗");
          button.setAttribute("aria-pressed", "true");
          found.right += word === verdict;
          found.of += 1;
          score.textContent = `${found.right} right of ${found.of} answered, ${cards.length} in all`;
          details.open = true;
        };
        choice.append(button);
      }
      details.addEventListener("toggle", name);
      details.before(choice);
      details.open = false;
    }
    addEventListener("beforeprint", () => cards.forEach((card) => { card.querySelector("details").open = true; }));
  };

  for (const table of document.querySelectorAll("table.stacked")) {
    const heads = [...table.tHead.rows[0].cells].map(said);
    for (const row of table.tBodies[0]?.rows ?? []) [...row.cells].forEach((cell, i) => {
      cell.dataset.head = heads[i] ?? "";
      cell.classList.toggle("nothing", said(cell) === "-");
    });
    table.classList.add("labelled");
  }
  const tables = [...document.querySelectorAll("table.filterable")];
  if (tables.length) filterTables(tables);
  const cards = [...document.querySelectorAll(".question")];
  if (cards.length) askQuestions(cards);
});
