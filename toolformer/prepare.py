"""In: a configuration of a corpus. Out: its folder, made now or found, and a table of what is in it."""

from pathlib import Path

from omegaconf import DictConfig

from toolformer.cli import entry


@entry("prepare")
def main(cfg: DictConfig, folder: Path) -> None:
    """Builds a corpus that training and evaluation use: python -m toolformer.prepare corpus=real.

    Takes each source from its folder in corpus.root (default: $TOOLFORMER_DATA). Where the SGD dialogues alone are
    missing they are downloaded there first (390 MB, checked, resumed where it broke off). Done once for the same data
    and rules; the second call finds it, and a call that was killed goes on behind the last step that it finished.

    Examples:
      python -m toolformer.prepare corpus=real workers=2
      python -m toolformer.prepare corpus=real until=splits
      python -m toolformer.prepare corpus=sgd corpus.root=/data download=false
      python -m toolformer.prepare corpus=sgd corpus.rules.test_wording=5
    """
    import shutil

    from hydra.utils import instantiate

    from toolformer.data.download import SGD_FILES, SGD_URL, fetch, listing
    from toolformer.data.sources import sgd
    from toolformer.reporting.card import write_card

    made = instantiate(cfg.corpus, _convert_="object")
    if made.missing() == [sgd.NAME] and cfg.download:
        print(f"{cfg.corpus.root}: no dialogues there; downloading them from {SGD_URL}", flush=True)
        fetch(Path(cfg.corpus.root) / sgd.NAME, listing(SGD_FILES), SGD_URL, progress=cfg.progress)
    corpus = made.build(cfg.until)
    if corpus is None:
        print(f"done until {cfg.until}")
        return
    info = corpus.info
    shutil.copy(corpus.folder / "corpus.json", folder / "corpus.json")
    for split, strata in info["strata"].items():
        parts = ", ".join(f"{count:,} {stratum}" for stratum, count in sorted(strata.items()))
        print(f"{split:<14} {info['rows'][split]:>7,} rows: {parts}")
    print(f"{info['tools']} tools in all wordings; set aside and why: {folder / 'corpus.json'}")
    if "statistics" in info:
        page = corpus.folder / "card.html"
        print(f"data card: {page if page.is_file() else write_card(corpus.folder, info)}")
    print(f"corpus: {corpus.folder} (fingerprint {corpus.fingerprint})")


if __name__ == "__main__":
    main()
