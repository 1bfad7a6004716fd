"""The server's pages: each a function from a request to HTML."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from safesail.errors import InputError
from safesail.explorer._contexts import EVERY, FEW, Shown
from safesail.explorer._corrections import LONGEST, Correction
from safesail.explorer._explorer import Explorer, FeatureView
from safesail.explorer._guard import Token
from safesail.explorer._listing import Query
from safesail.explorer._templates import server_environment

_MOST_CORRECTED_CONCEPTS = 50


class Pages:
    """Pages over one study.

    Args:
        explorer: reads the study.
        author: whom a correction is by, until its author says otherwise.
    """

    def __init__(self, explorer: Explorer, author: str = "") -> None:
        self.explorer = explorer
        self.token = Token()
        self._author = author
        self._templates = server_environment()

    def render(self, template: str, here: str = "", status: int = 200, **values: Any) -> Response:
        """A page; `here` is the entry of the navigation that it belongs to."""
        study = self.explorer.study
        state = self.explorer.search.state
        html = self._templates.get_template(template).render(
            here=here,
            study=study.folder.name,
            overview=self.explorer.overview,
            notices=[*self.explorer.catalog.warnings, *([state] if state else [])],
            **values,
        )
        return HTMLResponse(html, status)

    def home(self, request: Request) -> Response:
        """The study at a glance."""
        model = self.explorer.study.configuration.model.name
        return self.render("home.html", "/", model=model)

    def features(self, request: Request) -> Response:
        """A list of features."""
        query = Query.from_parameters(request.query_params)
        found = self.explorer.features(query)
        snippets = (
            self.explorer.search.snippets(query.q, [(r["sae"], r["feature"]) for r in found.rows])
            if query.q
            else {}
        )
        return self.render(
            "features.html", "/features", query=query, found=found, snippets=snippets, q=query.q
        )

    def feature(self, request: Request) -> Response:
        """One feature."""
        return self._feature(request, Query.from_parameters(request.query_params))

    def _feature(
        self, request: Request, query: Query, fault: str = "", status: int = 200
    ) -> Response:
        everything = request.query_params.get("contexts") == "all"
        view = self._view(request, EVERY if everything else FEW)
        hidden = any(len(group.contexts) < group.total for group in view.groups)
        address = f"{request.url.path}?contexts=all"
        parameters = query.to_parameters()
        return self.render(
            "feature.html",
            "/features",
            status,
            **vars(view),
            query=query,
            near=self.explorer.neighbours(query, view.row["id"]),
            all_at=f"{address}&{parameters}" if hidden and parameters else address * hidden,
            token=self.token.value,
            author=self._author,
            saved="saved" in request.query_params,
            fault=fault,
        )

    async def correct(self, request: Request) -> Response:
        """Keep what a person corrected, then show the feature."""
        fields = await self.token.form(request)
        return await run_in_threadpool(self._correct, request, fields)

    def _correct(self, request: Request, fields: dict[str, list[str]]) -> Response:
        view = self._view(request)
        query = Query.from_parameters(dict(parse_qsl(fields.get("list", [""])[0])))
        author = " ".join(fields.get("author", [""])[0].split())[:100]
        if not author:
            return self._feature(request, query, "Say who you are, so that others can ask.", 422)
        corrections = self._corrections(view, fields, author)
        if not corrections:
            return self._feature(request, query, "Nothing differs from what stands there.", 422)
        for correction in corrections:
            self.explorer.correct(correction)
        parameters = query.to_parameters()
        return RedirectResponse(
            f"{request.url.path}?saved=1{'&' * bool(parameters)}{parameters}", 303
        )

    def _corrections(
        self, view: FeatureView, fields: dict[str, list[str]], author: str
    ) -> list[Correction]:
        """What differs from what the page showed."""
        row = view.row
        of = {"author": author, "sae": row["sae"], "feature": row["feature"]}
        by = row["source"] or row["judge_model"] or row["explainer"] or "nobody"
        found = []
        text = " ".join(fields.get("explanation", [""])[0].split())[:LONGEST]
        if text and text != " ".join((row["explanation"] or "").split())[:LONGEST]:
            found.append(
                Correction(
                    **of,
                    language=row["language"] or self.explorer.study.configuration.judge.language,
                    field="explanation",
                    value=text,
                    corrected=row["explanation"],
                    explained_by=row["corrected_by"] or by,
                )
            )
        known = {concept.name for concept in self.explorer.overview.concepts}
        given = [name for name in fields.get("concept", []) if name in known]
        if set(given) != set(row["concepts"]):
            found.append(
                Correction(
                    **of,
                    language="",
                    field="concepts",
                    value=given[:_MOST_CORRECTED_CONCEPTS],
                    corrected=row["concepts"],
                    explained_by=by,
                )
            )
        return found

    def concept(self, request: Request) -> Response:
        """One concept."""
        name = request.query_params.get("name", "")
        concept = self.explorer.overview.concept(name)
        if concept is None:
            raise HTTPException(404, f"There is no concept {name!r} in this study.")
        query = Query(concept=name)
        return self.render(
            "concept.html",
            concept=concept,
            children=self.explorer.overview.children(concept),
            query=query,
            found=self.explorer.features(query),
            ranking=self.explorer.overview.ranking_of(name),
        )

    def sae(self, request: Request) -> Response:
        """One SAE."""
        name = request.path_params["sae"]
        overview = self.explorer.overview
        rows = [row for (sae, _), row in overview.ranked_rows.items() if sae == name]
        summary = next((one for one in overview.saes if one["sae"] == name), None)
        if not rows and summary is None:
            raise HTTPException(404, f"There is no SAE {name!r} in this study.")
        warnings = dict.fromkeys(line for row in rows for line in row["warnings"] or [])
        return self.render(
            "sae.html",
            sae=name,
            rows=rows,
            summary=summary,
            listed=Query(sae=name),
            warnings=list(warnings),
            costs=[cost for cost in overview.costs if cost.sae == name],
        )

    def _view(self, request: Request, shown: Shown = FEW) -> FeatureView:
        sae, number = request.path_params["sae"], request.path_params["feature"]
        plain = number.isascii() and number.isdecimal() and len(number) < 16
        view = self.explorer.feature(sae, int(number), shown) if plain else None
        if view is None:
            raise HTTPException(404, f"Feature {number} of {sae} was not chosen in this study.")
        return view

    def fault(self, request: Request, error: Exception) -> Response:
        """A page that says what is wrong."""
        if isinstance(error, HTTPException):
            titles = {404: "Not found", 405: "Not here"}
            title = titles.get(error.status_code, "Not possible")
            return self.render(
                "error.html", "", error.status_code, title=title, message=error.detail
            )
        status = 400 if isinstance(error, InputError) else 500
        return self.render("error.html", "", status, title="Not possible", message=str(error))
