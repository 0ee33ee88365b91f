"""How the figures look: readable at half of a page's width, and without colour."""
import math

from claims import interval

# Okabe and Ito's palette, which the colour-blind can tell apart
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PINK, GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"


def pyplot():
    """matplotlib.pyplot, drawing to files; None, said, where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        print("no figure: pip install matplotlib")
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    pyplot.rcParams.update({
        "font.size": 13, "axes.titlesize": 14, "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 2.2,
        "figure.figsize": (6, 4), "figure.dpi": 150, "savefig.facecolor": "white"})
    return pyplot


def title(fig, text):
    """In bold, from the left edge of the figure: there a long one has room."""
    fig.suptitle(text, x=0.01, ha="left", fontsize=14, fontweight="bold")


def whisker(values):
    """-> mean over seeds and the half width of its 95% interval, 0 for one seed"""
    mean, half = interval(values)
    return mean, 0 if math.isnan(half) else half


def spread(ax, at, values, colour, sideways=False):
    """Over x = at (sideways: at the height y = at): the seeds as rings, their mean as a dot, its 95%
    interval."""
    mean, half = whisker(values)
    order = -1 if sideways else 1  # of x and y
    ax.errorbar(*(at, mean)[::order], **{"xerr" if sideways else "yerr": half}, color=colour,
                capsize=4)
    ax.plot(*([at] * len(values), values)[::order], "o", color="white", mec=colour, ms=5)
    ax.plot(*(at, mean)[::order], "o", color=colour, ms=9)


def save(plt, path):
    plt.gcf().savefig(path)
    plt.close()


def smooth(values, width=5):
    """The mean of a value and its neighbours, fewer at the ends."""
    half = width // 2
    near = [values[max(0, i - half):i + half + 1] for i in range(len(values))]
    return [sum(x) / len(x) for x in near]


def apart(heights, least):
    """Move labels up and down until neighbours are `least` apart, their order kept -> heights"""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = [heights[i] for i in order]
    for _ in range(200):
        for i in range(len(moved) - 1):
            short = least - (moved[i + 1] - moved[i])
            if short > 1e-9:
                moved[i], moved[i + 1] = moved[i] - short / 2, moved[i + 1] + short / 2
    return [moved[order.index(i)] for i in range(len(heights))]


def label_ends(ax, x, ends, least):
    """Write each line's name behind its end. ends: [(name, height, colour)]"""
    for (name, _, colour), y in zip(ends, apart([end[1] for end in ends], least)):
        ax.text(x, y, name, color=colour, va="center", fontweight="bold")
