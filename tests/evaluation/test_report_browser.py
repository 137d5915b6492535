"""Reports opened in a real browser: they draw, they do not complain, they ask nobody for anything."""

import re

import pytest
from browser import print_to, visit
from report_folders import write_picking

from evaluation import report


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return report.write(write_picking(tmp_path_factory.mktemp("browser") / "a", examples=1, rows=60))


def drawn(document):
    """Numbers of places for figures, and of those that hold a drawing."""
    return len(re.findall(r"data-spec=", document)), len(re.findall(r'class="plot js-plotly-plot', document))


def test_a_report_draws_every_figure_in_silence(single, tmp_path):
    document, complaints, asked = visit(single, tmp_path)
    assert complaints == []
    assert drawn(document) == (8, 8)
    assert 'data-drawn="8"' in document
    assert document.count('class="main-svg"') >= 8
    assert "<title>Phase picking: xlstm/small / run0</title>" in document
    assert asked == []
    assert "cloud" not in re.sub(r"<script.*?</script>", "", document, flags=re.DOTALL)  # no button that sends data away


def test_a_comparison_draws_too(tmp_path):
    starts = [("scratch", 0.5, 0.1), ("scratch", 0.8, 1.0), ("pretrained", 0.9, 0.1), ("pretrained", 0.9, 1.0)]
    folders = [
        write_picking(tmp_path / str(n), seed=n, skill=skill, rows=60, examples=1, init=init, training_fraction=share)
        for n, (init, skill, share) in enumerate(starts)
    ]
    where = report.write_comparison(folders, tmp_path / "out")
    document, complaints, asked = visit(where, tmp_path)
    assert complaints == []
    assert drawn(document) == (2, 2)
    assert asked == []


def test_a_broken_page_is_noticed(single, tmp_path):
    """The checks above can fail: on a script that raises, on an image from elsewhere, which the page's policy keeps out."""
    html = single.read_text().replace("<main>", '<main><img src="http://example.org/x.png"><script>nothing.here()</script>')
    broken = tmp_path / "broken.html"
    broken.write_text(html)
    _, complaints, asked = visit(broken, tmp_path)
    assert any("nothing is not defined" in line for line in complaints)
    assert any("Content Security Policy" in line for line in complaints)
    assert asked == []
    broken.write_text(html.replace("Content-Security-Policy", "nothing"))
    assert visit(broken, tmp_path)[2] == ["http://example.org/x.png"]


def test_a_report_prints(single, tmp_path):
    assert print_to(single, tmp_path / "report.pdf", tmp_path).read_bytes().startswith(b"%PDF")
