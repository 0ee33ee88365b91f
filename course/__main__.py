"""The lessons of the course: python -m course"""
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
PAGES = ("1-grpo.md", "2-sampling.md", "3-tandem.md", "4-belief-states.md", "5-atod.md",
         "6-experiment.md")


def lesson(page):
    """A page -> its title and its time, as the page says them."""
    path = os.path.join(HERE, page)
    if not os.path.exists(path):
        return f"{page} (not written yet)", ""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    title = text.partition("\n")[0].lstrip("# ").strip()
    time = re.search(r"^Time: *(.*?)\.?$", text, re.MULTILINE)
    return title, time[1] if time else ""


def main():
    for page in PAGES:
        title, time = lesson(page)
        print(f"{title}\n   course/{page}" + (f": {time}" if time else ""))
    print("\nblanks to fill:  python course/blank.py")
    print("bugs to find:    python course/bugs.py")


if __name__ == "__main__":
    main()
