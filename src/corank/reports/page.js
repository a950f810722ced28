"use strict";
// A click on a heading sorts its table; a point of a picture shows what it stands for. The page reads without it, too.
(() => {
  const NUMBER = /^[±+]?(-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)\s*(B|KB|MB|GB|[%×xs]|ms|nats)?(?: of \d+)?$/i;
  const SCALE = { kb: 1e3, mb: 1e6, gb: 1e9 };

  const numberOf = (text) => {
    const found = NUMBER.exec(text.replace("−", "-"));
    return found && Number(found[1].replaceAll(",", "")) * (SCALE[(found[2] || "").toLowerCase()] || 1);
  };

  const isNothing = (text) => text === "–" || text === "";

  // What is not there comes last, whichever way the column is sorted.
  const sortRows = (rows, column, sign) => {
    const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
    const numeric = rows.every((row) => isNothing(texts.get(row)) || numberOf(texts.get(row)) !== null);
    return [...rows].sort((one, other) => {
      const [a, b] = [texts.get(one), texts.get(other)];
      if (isNothing(a) || isNothing(b)) return isNothing(a) - isNothing(b);
      return sign * (numeric ? numberOf(a) - numberOf(b) : a.localeCompare(b, undefined, { numeric: true }));
    });
  };

  const makeSortable = (table) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    if (rows.length < 2) return;
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const way = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", way);
        body.append(...sortRows(rows, column, way === "ascending" ? 1 : -1));
      });
    });
  };

  const makeTelling = (figure) => {
    const told = figure.querySelector(".told");
    const points = [...figure.querySelectorAll("a.point")];

    const show = (point) => {
      const place = document.getElementById(point.getAttribute("href").slice(1));
      points.forEach((other) => other.classList.toggle("shown", other === point));
      told.replaceChildren(...[...place.querySelectorAll(".says")].map((part) => part.cloneNode(true)));
    };
    // Points lie close: the nearest one is meant.
    const nearest = (event) => {
      const apart = (point) => {
        const box = point.querySelector("use").getBoundingClientRect();
        return Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
      };
      const far = new Map(points.map((point) => [point, apart(point)]));
      return points.reduce((one, other) => (far.get(other) < far.get(one) ? other : one));
    };
    points.forEach((point) => {
      point.addEventListener("focus", () => show(point));
      point.addEventListener("pointermove", (event) => show(nearest(event)));
      point.addEventListener("click", (event) => {
        event.preventDefault();
        show(event.detail ? nearest(event) : point);
      });
    });
  };

  document.querySelectorAll("table").forEach(makeSortable);
  document.querySelectorAll(".telling").forEach(makeTelling);
})();
