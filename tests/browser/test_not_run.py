"""What a person sees of a model that is not run: its shapes or its modules, and that it is no more."""

from __future__ import annotations

from tests.browser.explorer_page import ExplorerPage

NET = """
    import torch, nnviz_widget as nnviz

    def net():
        block = lambda: torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU())
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), block(), block(), torch.nn.AdaptiveAvgPool2d(1),
                                   torch.nn.Flatten(), torch.nn.Linear(8, 5))
"""
META = """
    with torch.device("meta"):
        model = net()
    w = nnviz.explore(model, torch.randn(2, 3, 16, 16))
    w
"""


def test_without_inputs_the_modules_are_drawn_under_a_notice(lab):
    notebook = lab.open([NET + "    w = nnviz.explore(net())\n    w\n"])
    notebook.run()
    page = ExplorerPage(notebook)
    page.nodes.first.wait_for()
    notice = page.root.locator(".nn-notice")
    notice.wait_for()
    assert "Modules only." in notice.inner_text()
    assert "not run" in notice.inner_text()
    for part in ("0", "3", "4", "5"):
        assert page.node(part).is_visible(), part


def test_a_model_without_values_is_drawn_with_its_shapes_under_a_notice(lab):
    notebook = lab.open([NET + META])
    notebook.run()
    page = ExplorerPage(notebook)
    page.nodes.first.wait_for()
    notice = page.root.locator(".nn-notice")
    notice.wait_for()
    assert "Shapes only." in notice.inner_text()
    page.node("0").click()
    page.root.locator("[data-panel='maps']").get_by_text("shapes and no values").wait_for()
