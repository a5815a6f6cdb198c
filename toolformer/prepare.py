"""In: a configuration that names a source. Out: its corpus folder, made now or found, and a table of what is in it."""

from pathlib import Path

from omegaconf import DictConfig

from toolformer.cli import entry


@entry("prepare")
def main(cfg: DictConfig, folder: Path) -> None:
    """Reads real dialogues into a corpus that training and evaluation use: python -m toolformer.prepare data=sgd.

    Takes them from data.root (default: $TOOLFORMER_DATA), or downloads them there first (390 MB, checked, resumed
    where it broke off). Done once per data and rules; the second call finds it.

    Examples:
      python -m toolformer.prepare data=sgd
      python -m toolformer.prepare data=sgd data.root=/data download=false
      python -m toolformer.prepare data=sgd data.rules.test_wording=5
    """
    import shutil

    from hydra.utils import instantiate

    from toolformer.data.download import SGD_FILES, SGD_URL, fetch, listing
    from toolformer.data.sources import sgd

    try:
        sgd.find_root(cfg.data.root)
    except FileNotFoundError:
        if not cfg.download:
            raise
        print(f"{cfg.data.root}: no dialogues there; downloading them from {SGD_URL}", flush=True)
        fetch(Path(cfg.data.root) / sgd.NAME, listing(SGD_FILES), SGD_URL, progress=cfg.progress)
    corpus = instantiate(cfg.data).corpus
    info = corpus.info
    shutil.copy(corpus.folder / "corpus.json", folder / "corpus.json")
    for split, strata in info["strata"].items():
        parts = ", ".join(f"{count:,} {stratum}" for stratum, count in sorted(strata.items()))
        print(f"{split:<14} {info['rows'][split]:>7,} rows: {parts}")
    print(f"{info['tools']} tools in all wordings; set aside and why: {folder / 'corpus.json'}")
    print(f"corpus: {corpus.folder} (fingerprint {corpus.fingerprint})")


if __name__ == "__main__":
    main()
