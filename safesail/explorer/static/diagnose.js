// Tokens, what fires on them, and trajectories. All text goes through textContent.
"use strict";

(() => {
  function element(name, text = "", className = "") {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function level(strength) {
    return strength > 0 ? `a${Math.min(10, Math.max(1, Math.round(10 * strength)))}` : "";
  }

  function featureLink(feature) {
    const link = element("a", String(feature.feature));
    link.href = `/feature/${encodeURIComponent(feature.sae)}/${feature.feature}`;
    return link;
  }

  function isolated(text) { return element("bdi", text); }

  function firingsTable(data, at) {
    const table = element("table", "", "list");
    const head = table.createTHead().insertRow();
    for (const [name, kind] of [["Feature", ""], ["Explanation", ""], ["Concepts", "wide"], ["Strength", "number"]]) {
      const cell = element("th", name, kind);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const [number, strength, activation] of data.firings[at]) {
      const feature = data.features[number];
      const row = body.insertRow();
      const name = element("th");
      name.scope = "row";
      name.append(featureLink(feature), element("small", `layer ${feature.layer}`));
      const text = element("td", "", "explained");
      text.append(isolated(feature.text));
      const concepts = element("td", "", "wide");
      concepts.append(isolated(feature.concepts.join(", ")));
      const value = element("td", strength.toFixed(2), "number");
      value.title = `activation ${activation}`;
      row.append(name, text, concepts, value);
    }
    return table;
  }

  function trajectoryTable(data, trajectory, choose) {
    const table = element("table", "", "heat");
    const head = table.createTHead().insertRow();
    head.append(element("th", "Layer"));
    data.tokens.forEach((token, at) => {
      const cell = element("th");
      cell.append(isolated(token.length > 14 ? `${token.slice(0, 13)}…` : token));
      cell.dataset.at = at;
      head.append(cell);
    });
    const body = table.createTBody();
    trajectory.strengths.forEach((row, place) => {
      const line = body.insertRow();
      const name = element("th", String(data.layers[place].layer));
      name.title = data.layers[place].sae;
      line.append(name);
      row.forEach((strength, at) => {
        const cell = line.insertCell();
        cell.dataset.at = at;
        cell.className = level(strength);
        cell.textContent = strength === null ? "·" : "";
        cell.title = strength === null ? "not read" : strength.toFixed(2);
      });
    });
    table.addEventListener("click", (event) => {
      const cell = event.target.closest("[data-at]");
      if (cell) choose(Number(cell.dataset.at));
    });
    return table;
  }

  function prepare(section) {
    const data = JSON.parse(section.querySelector("script.data").textContent);
    const buttons = [...section.querySelectorAll(".tokens button")];
    const panel = section.querySelector(".at");
    const place = section.querySelector(".trajectories");
    const choices = place.querySelector(".choices");
    let chosen = -1;

    function choose(at, focus = false) {
      if (!buttons[at]) return;
      if (buttons[chosen]) buttons[chosen].setAttribute("aria-pressed", "false");
      for (const button of buttons) button.tabIndex = -1;
      chosen = at;
      buttons[at].tabIndex = 0;
      buttons[at].setAttribute("aria-pressed", "true");
      if (focus) buttons[at].focus();
      for (const cell of section.querySelectorAll(".heat .chosen")) cell.classList.remove("chosen");
      for (const cell of section.querySelectorAll(`.heat [data-at="${at}"]`)) cell.classList.add("chosen");
      const title = element("p", "On ");
      const token = element("bdi", data.tokens[at], "token");
      title.append(token, element("span", `, token ${at + 1} of ${data.tokens.length}`, "soft"));
      const rest = data.firings[at].length
        ? firingsTable(data, at)
        : element("p", "Nothing that is explained fires here.", "soft");
      panel.replaceChildren(title, rest);
    }

    section.querySelector(".tokens").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) choose(Number(button.dataset.at), true);
    });
    section.querySelector(".tokens").addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const ends = { Home: 0, End: buttons.length - 1 }[event.key];
      if (step === undefined && ends === undefined) return;
      event.preventDefault();
      choose(ends ?? buttons.indexOf(document.activeElement) + step, true);
    });

    function show(number) {
      [...choices.children].forEach((button, at) => button.setAttribute("aria-pressed", String(at === number)));
      place.querySelector(".heat").replaceWith(
        trajectoryTable(data, data.trajectories[number], (at) => choose(at)),
      );
      for (const cell of section.querySelectorAll(`.heat [data-at="${chosen}"]`)) cell.classList.add("chosen");
    }

    data.trajectories.forEach((trajectory, number) => {
      const button = element("button", "", "chip");
      button.type = "button";
      button.append(isolated(trajectory.concept), element("span", ` ${trajectory.peak.toFixed(2)}`, "count"));
      button.addEventListener("click", () => show(number));
      choices.append(button);
    });
    if (data.trajectories.length) {
      place.hidden = false;
      show(0);
    }
  }

  for (const section of document.querySelectorAll(".result")) prepare(section);
})();
