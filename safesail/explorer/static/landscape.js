// The landscape on a canvas: hover, select, zoom; by mouse, finger or keys.
"use strict";

(async () => {
  const place = document.querySelector(".landscape");
  if (!place) return;
  const canvas = place.querySelector("canvas");
  const card = place.querySelector(".hover");
  const status = document.querySelector("#at");
  const pen = canvas.getContext("2d");
  const margin = 14;
  const near = 12;
  const mostListed = 200;

  let points;
  try {
    const answer = await fetch(`/landscape/points?sae=${encodeURIComponent(place.dataset.sae)}`);
    if (!answer.ok) throw new Error(String(answer.status));
    points = await answer.json();
  } catch {
    status.textContent = "The features could not be placed; the terminal says why.";
    return;
  }
  const count = points.feature.length;
  status.textContent = `${count.toLocaleString("en")} features`;
  const bounds = { x: extent(points.x), y: extent(points.y) };
  const off = new Set();
  let view = { scale: 1, x: 0, y: 0 };
  let hovered = -1;
  let drag = null;
  let selected = new Set();
  let waiting = false;

  function extent(values) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    return high > low ? [low, high] : [low - 1, low + 1];
  }

  function size() { return [canvas.clientWidth, canvas.clientHeight]; }

  function at(number) {
    const [width, height] = size();
    const x = margin + (width - 2 * margin) * (points.x[number] - bounds.x[0]) / (bounds.x[1] - bounds.x[0]);
    const y = margin + (height - 2 * margin) * (points.y[number] - bounds.y[0]) / (bounds.y[1] - bounds.y[0]);
    return [x * view.scale + view.x, y * view.scale + view.y];
  }

  function colourOf(number) {
    const concept = points.concept[number];
    return concept < 0 ? 8 : points.concepts[concept].colour;
  }

  function draw() {
    waiting = false;
    const [width, height] = size();
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(document.documentElement);
    const radius = Math.max(1.6, Math.min(5, 90 / Math.sqrt(count))) * Math.min(2, Math.sqrt(view.scale));
    // One path a colour: thousands of points are drawn in a few milliseconds.
    const paths = new Map();
    for (let number = 0; number < count; number += 1) {
      if (off.has(points.concept[number])) continue;
      const [x, y] = at(number);
      if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
      const colour = colourOf(number);
      if (!paths.has(colour)) paths.set(colour, new Path2D());
      const path = paths.get(colour);
      path.moveTo(x + radius, y);
      path.arc(x, y, radius, 0, 2 * Math.PI);
    }
    pen.globalAlpha = 0.8;
    for (const [colour, path] of paths) {
      pen.fillStyle = style.getPropertyValue(`--c${colour}`);
      pen.fill(path);
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = style.getPropertyValue("--text");
    pen.lineWidth = 1.5;
    for (const number of selected) ring(number, radius + 1.5);
    if (hovered >= 0) { pen.lineWidth = 2.5; ring(hovered, radius + 3); }
    if (drag && drag.to) {
      pen.strokeStyle = style.getPropertyValue("--accent");
      pen.lineWidth = 1;
      pen.setLineDash([4, 3]);
      pen.strokeRect(drag.from[0], drag.from[1], drag.to[0] - drag.from[0], drag.to[1] - drag.from[1]);
      pen.setLineDash([]);
    }
  }

  function ring(number, radius) {
    const [x, y] = at(number);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.stroke();
  }

  function redraw() {
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  }

  function nearest(x, y, most) {
    let best = -1;
    let least = most * most;
    for (let number = 0; number < count; number += 1) {
      if (off.has(points.concept[number])) continue;
      const [px, py] = at(number);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) { least = distance; best = number; }
    }
    return best;
  }

  function conceptOf(number) {
    return points.concept[number] < 0 ? "no concept" : points.concepts[points.concept[number]].name;
  }

  function hover(number, speak = false) {
    if (number === hovered && !speak) return;
    hovered = number;
    card.hidden = number < 0;
    canvas.classList.toggle("on", number >= 0);
    if (number >= 0) {
      const score = points.score[number] === null ? "no score" : `discrimination ${points.score[number].toFixed(2)}`;
      const title = document.createElement("b");
      title.textContent = `Feature ${points.feature[number]}`;
      const concept = document.createElement("span");
      concept.className = `concept c${colourOf(number)}`;
      const dot = document.createElement("i");
      dot.className = "dot";
      concept.append(dot, conceptOf(number));
      const text = document.createElement("bdi");
      text.textContent = points.text[number];
      const line = document.createElement("small");
      line.textContent = score;
      card.replaceChildren(title, concept, text, line);
      const [x, y] = at(number);
      const [width, height] = size();
      // Only the script places it: the policy allows that, and no style attribute in the page.
      card.style.left = `${Math.max(0, Math.min(x + 14, width - card.offsetWidth - 4))}px`;
      card.style.top = `${y + card.offsetHeight + 20 > height ? Math.max(0, y - card.offsetHeight - 12) : y + 12}px`;
      if (speak) status.textContent = `Feature ${points.feature[number]}, ${conceptOf(number)}: ${points.text[number]}`;
    }
    redraw();
  }

  function address(number) {
    return `/feature/${encodeURIComponent(points.sae)}/${points.feature[number]}`;
  }

  function select(numbers) {
    selected = new Set(numbers);
    const table = document.querySelector("section table.list");
    const line = document.querySelector("#selection");
    table.hidden = !numbers.length;
    const sorted = [...numbers].sort((a, b) => (points.score[b] ?? -1) - (points.score[a] ?? -1));
    const rows = sorted.slice(0, mostListed).map((number) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      const link = document.createElement("a");
      link.href = address(number);
      link.textContent = points.feature[number];
      head.append(link);
      const text = document.createElement("td");
      text.className = "explained";
      text.append(Object.assign(document.createElement("bdi"), { textContent: points.text[number] }));
      const concept = document.createElement("td");
      concept.textContent = conceptOf(number);
      const score = document.createElement("td");
      score.className = "number";
      score.textContent = points.score[number] === null ? "–" : points.score[number].toFixed(2);
      row.append(head, text, concept, score);
      return row;
    });
    table.tBodies[0].replaceChildren(...rows);
    line.textContent = numbers.length ? `${numbers.length.toLocaleString("en")} features. ` : "No feature lies there.";
    if (numbers.length) {
      const link = document.createElement("a");
      const shown = sorted.slice(0, mostListed);
      link.href = `/features?sae=${encodeURIComponent(points.sae)}&features=${shown.map((n) => points.feature[n]).join(",")}`;
      link.textContent = shown.length < numbers.length ? `The best ${mostListed} as a list` : "As a list";
      line.append(link);
    }
    redraw();
  }

  function zoom(factor, x, y) {
    const scale = Math.min(60, Math.max(1, view.scale * factor));
    const change = scale / view.scale;
    view = scale === 1 ? { scale: 1, x: 0, y: 0 } : { scale, x: x - (x - view.x) * change, y: y - (y - view.y) * change };
    redraw();
  }

  function inside(event) {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = inside(event);
    if (drag) { drag.to = [x, y]; redraw(); return; }
    hover(nearest(x, y, near));
  });
  canvas.addEventListener("pointerleave", () => { if (!drag) hover(-1); });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    drag = { from: inside(event), to: null };
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { from } = drag;
    const to = inside(event);
    drag = null;
    if (Math.abs(to[0] - from[0]) < 4 && Math.abs(to[1] - from[1]) < 4) {
      const number = nearest(to[0], to[1], near);
      if (number >= 0) { hover(number, true); select([number]); }
      redraw();
      return;
    }
    const [left, right] = [Math.min(from[0], to[0]), Math.max(from[0], to[0])];
    const [top, bottom] = [Math.min(from[1], to[1]), Math.max(from[1], to[1])];
    const found = [];
    for (let number = 0; number < count; number += 1) {
      const [x, y] = at(number);
      if (!off.has(points.concept[number]) && x >= left && x <= right && y >= top && y <= bottom) found.push(number);
    }
    select(found);
  });
  canvas.addEventListener("pointercancel", () => { drag = null; redraw(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, ...inside(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", () => { view = { scale: 1, x: 0, y: 0 }; redraw(); });

  // The nearest point in the direction of an arrow; sideways distance counts double.
  function towards(dx, dy) {
    if (hovered < 0) { const [width, height] = size(); return nearest(width / 2, height / 2, Infinity); }
    const [x, y] = at(hovered);
    let best = -1;
    let least = Infinity;
    for (let number = 0; number < count; number += 1) {
      if (number === hovered || off.has(points.concept[number])) continue;
      const [px, py] = at(number);
      const along = (px - x) * dx + (py - y) * dy;
      if (along <= 0) continue;
      const aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along + 2 * aside < least) { least = along + 2 * aside; best = number; }
    }
    return best < 0 ? hovered : best;
  }
  canvas.addEventListener("keydown", (event) => {
    const [width, height] = size();
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (arrows[event.key]) hover(towards(...arrows[event.key]), true);
    else if (event.key === "Enter" && hovered >= 0) location.assign(address(hovered));
    else if (event.key === " " && hovered >= 0) select([hovered]);
    else if (event.key === "+") zoom(1.25, width / 2, height / 2);
    else if (event.key === "-") zoom(0.8, width / 2, height / 2);
    else if (event.key === "Escape") hover(-1);
    else return;
    event.preventDefault();
  });

  // A concept's switch hides its points.
  const tally = new Map();
  for (const concept of points.concept) tally.set(concept, (tally.get(concept) || 0) + 1);
  const legend = document.querySelector(".switches");
  for (const [concept, many] of [...tally].sort((a, b) => b[1] - a[1])) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `chip c${concept < 0 ? 8 : points.concepts[concept].colour}`;
    button.setAttribute("aria-pressed", "true");
    const dot = document.createElement("i");
    dot.className = "dot";
    const tail = document.createElement("span");
    tail.className = "count";
    tail.textContent = ` ${many}`;
    button.append(dot, concept < 0 ? "no concept" : points.concepts[concept].name, tail);
    button.addEventListener("click", () => {
      if (!off.delete(concept)) off.add(concept);
      button.setAttribute("aria-pressed", String(!off.has(concept)));
      hover(-1);
      redraw();
    });
    const item = document.createElement("li");
    item.append(button);
    legend.append(item);
  }

  new ResizeObserver(redraw).observe(canvas);
  document.addEventListener("themechange", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  canvas.dataset.ready = "true";
  redraw();
})();
