"""Which candidates share a model pass, and how their weights and activations fit in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from safesail.corpus import Corpus
from safesail.errors import CandidateError
from safesail.language_model import LanguageModel, TokenizedText
from safesail.ranking._activations import Progress, Site, SiteTokens, Spool, read_sites
from safesail.ranking._design import PairDesign
from safesail.ranking._observe import Observation
from safesail.ranking._texts import tokenize_pairs
from safesail.ranking._wiring import Probe
from safesail.reading import Reading
from safesail.sparse_autoencoder import Candidate, SparseAutoencoder, memory_limit
from safesail.study import RankingSettings

# Tokens whose activations are held at every hook point until attention sinks can be told.
_HELD_TOKENS = 20_000


@dataclass(frozen=True)
class Refused:
    """A candidate that cannot be read or does not fit, and why."""

    candidate: Candidate
    reason: str


@dataclass
class _Member:
    """A candidate of a group; `sae` is None where it is not held in memory."""

    candidate: Candidate
    site: Site
    sae: SparseAutoencoder | None


@dataclass
class _Group:
    """Candidates of one BOS rule and context size, which share a model pass.

    Attributes:
        prepend_bos: their BOS rule.
        sample: the corpus sample, tokenised by that rule and cut to that size.
        members: the candidates.
        size: bytes of their weights and of what is observed of them.
    """

    prepend_bos: bool
    sample: list[TokenizedText]
    members: list[_Member]
    size: float = 0.0

    @property
    def sites(self) -> list[Site]:
        """What the candidates read and rebuild, each site once."""
        return list(dict.fromkeys(member.site for member in self.members))


def observe_candidates(
    model: LanguageModel,
    candidates: Sequence[Candidate],
    design: PairDesign,
    corpus: Corpus,
    settings: RankingSettings,
    *,
    progress: Progress,
) -> Iterator[Observation | Refused]:
    """Observe candidates on the corpus sample and the pairs' texts.

    Candidates of one BOS rule and context size share one model pass: both shape the corpus sample,
    and a candidate's numbers must not depend on its company. Where these candidates fit in memory
    together, each batch of the pass goes through all of them; else the pass is spooled to disk and
    they are loaded one by one. The numbers are the same either way.

    Args:
        model: the language model.
        candidates: any.
        design: the pairs' texts.
        corpus: its first `sample_tokens` tokens are the sample.
        settings: sample size, pooling, chat template.
        progress: wraps an iterable with a label.

    Raises:
        InputError: the corpus is empty, or a pair's text has no tokens.
        StorageError: activations must be spooled and the disk has no room for them.
    """
    limit = memory_limit(model.device)
    groups, refused = _group(model, candidates, len(design.texts), corpus, settings, limit)
    yield from refused
    for group in groups:
        texts = tokenize_pairs(model, design, group.prepend_bos, settings)
        batches = read_sites(
            model,
            group.sample,
            texts,
            group.sites,
            prepend_bos=group.prepend_bos,
            progress=progress,
        )
        observe = _together if group.size <= limit else _one_by_one
        probe = Probe(model, group.sample, group.sites, prepend_bos=group.prepend_bos)
        for found in observe(model, group, texts, batches, settings.pooling, progress):
            if isinstance(found, Observation):
                found.wiring = probe.try_on(found.sae)
            yield found


def _group(
    model: LanguageModel,
    candidates: Sequence[Candidate],
    texts: int,
    corpus: Corpus,
    settings: RankingSettings,
    limit: float,
) -> tuple[list[_Group], list[Refused]]:
    """Load every candidate once, to know what it reads; hold them all where memory allows."""
    groups: dict[Reading, _Group] = {}
    refused = []
    held = 0.0
    for candidate in candidates:
        try:
            sae = _load(candidate, model)
        except CandidateError as error:
            refused.append(Refused(candidate, str(error)))
            continue
        reading = Reading.of(model, prepend_bos=sae.prepend_bos, context_size=sae.context_size)
        if reading not in groups:
            sample = list(reading.texts(model, corpus, settings.sample_tokens))
            groups[reading] = _Group(sae.prepend_bos, sample, [])
        group, site = groups[reading], Site(sae.hook_point, sae.output_hook_point)
        size = 4.0 * sae.width * (sae.d_in + sae.d_out + texts)
        if site not in group.sites:
            size += 4.0 * _HELD_TOKENS * (sae.d_in + sae.d_out)
        group.size += size
        held += size
        group.members.append(_Member(candidate, site, sae if held <= limit else None))
    if held > limit:
        for member in (member for group in groups.values() for member in group.members):
            member.sae = None
    return list(groups.values()), refused


def _together(
    model: LanguageModel,
    group: _Group,
    texts: Sequence[TokenizedText],
    batches: Iterable[dict[Site, SiteTokens]],
    pooling: str,
    progress: Progress,
) -> Iterator[Observation | Refused]:
    observations = []
    for member in group.members:
        sae = member.sae or _load_again(member.candidate, model)
        if isinstance(sae, Refused):
            yield sae
        else:
            observations.append(_begin(sae, group, texts, pooling))
    for at_sites in batches:
        for observation in observations:
            observation.add(at_sites[observation.site])
    observations.reverse()
    for _ in progress(range(len(observations)), "scoring"):
        yield observations.pop()  # so that each is freed once it has been scored


def _one_by_one(
    model: LanguageModel,
    group: _Group,
    texts: Sequence[TokenizedText],
    batches: Iterable[dict[Site, SiteTokens]],
    pooling: str,
    progress: Progress,
) -> Iterator[Observation | Refused]:
    tokens = sum(len(text.token_ids) for text in [*group.sample, *texts])
    with Spool(model, group.sites, tokens) as spool:
        for at_sites in batches:
            spool.add(at_sites)
        for member in progress(group.members, "candidates"):
            sae = _load_again(member.candidate, model)
            if isinstance(sae, Refused):
                yield sae
                continue
            observation = _begin(sae, group, texts, pooling)
            for at_site in spool.read(member.site):
                observation.add(at_site)
            yield observation


def _begin(
    sae: SparseAutoencoder, group: _Group, texts: Sequence[TokenizedText], pooling: str
) -> Observation:
    tokens = sum(len(text.token_ids) for text in group.sample)
    pieces = Counter(int(text.document) for text in texts)
    return Observation(
        sae,
        sample_tokens=tokens,
        texts=len(pieces),
        cut_texts=sum(count > 1 for count in pieces.values()),
        pooling=pooling,
    )


def _load(candidate: Candidate, model: LanguageModel) -> SparseAutoencoder:
    sae = SparseAutoencoder.load(candidate, device=model.device)
    sae.check_fits(model)
    return sae


def _load_again(candidate: Candidate, model: LanguageModel) -> SparseAutoencoder | Refused:
    try:
        return _load(candidate, model)
    except CandidateError as error:  # its files changed since they were first read
        return Refused(candidate, str(error))
