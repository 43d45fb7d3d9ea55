"""One table of all published results, the paper's figures beside ours: the README's table of results.

python -m wfnb.reproduction.overview           # print it
python -m wfnb.reproduction.overview README.md # write it between the file's two markers
"""

import sys
from pathlib import Path

import pandas as pd

from wfnb.paths import published_folder, write_whole
from wfnb.reproduction.tables import as_markdown

__all__ = ["overview", "with_overview"]

SCALES = ("paper", "laptop", "quick")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def overview() -> pd.DataFrame:
    """One row a published network that was untrained by recipe ``wfnb``, as texts; the largest scale first.

    Figures are percentages, means over seeds (with standard deviation) and over classes, from
    ``runs/published/<preset>/tables/table1.csv``. The paper's figures stand beside networks of its own size.
    """
    rows = []
    for preset in SCALES:
        path = published_folder() / preset / "tables" / "table1.csv"
        if path.is_file():
            table = pd.read_csv(path)
            ours = table[(table["method"] == "WF-Net") & (table["recipe"] == "wfnb") & (table["seeds"] > 0)]
            rows += [_row(preset, own, table) for own in ours.to_dict("records")]
    return pd.DataFrame(rows)


def _row(preset: str, own: dict, table: pd.DataFrame) -> dict[str, str]:
    same = (table["dataset"] == own["dataset"]) & (table["arch"] == own["arch"])
    original = table[same & (table["method"] == "Original")].iloc[0]
    printed = not own["thin"] and not pd.isna(own["paper_acc_r_pct"])
    return {
        "preset": f"`{preset}`",
        "data": own["dataset"],
        "network": f"{own['arch']}{', thin' if own['thin'] else ''}",
        "original accuracy": f"{original['acc_r_pct']:.1f}",
        "Acc_r ↑": _with_sd(own, "acc_r"),
        "Acc_f ↓": _with_sd(own, "acc_f"),
        "probe recall ↓": f"{own['probe_recall_pct']:.1f} (original {original['probe_recall_pct']:.1f})",
        "paper: Acc_r, Acc_f": f"{own['paper_acc_r_pct']:g}, {own['paper_acc_f_pct']:g}" if printed else "–",
        "seeds": str(own["seeds"]),
    }


def _with_sd(own: dict, name: str) -> str:
    sd = own[f"{name}_sd"]
    return f"{own[f'{name}_pct']:.2f}" + ("" if pd.isna(sd) else f" ± {sd:.2f}")


def with_overview(text: str) -> str:
    """A Markdown text with the table between its two markers.

    Raises:
        ValueError: A marker is missing.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"the text needs the lines {BEGIN} and {END}.")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{as_markdown(overview())}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        file = Path(sys.argv[1])
        write_whole(file, with_overview(file.read_text(encoding="utf-8")))
    else:
        print(as_markdown(overview()), end="")
