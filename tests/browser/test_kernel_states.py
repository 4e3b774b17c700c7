"""The kernel computes, is busy, trains, dies or restarts: the explorer stays honest and useful."""

from __future__ import annotations

import re

from tests.browser.explorer_page import SHAPES, ExplorerPage

SPIN = """
    import time
    turns, deadline = 0, time.time() + 30
    print("computing")
    while w.selection["layer"] != "stage3" and time.time() < deadline:
        turns += 1
    turns > 1000 and time.time() < deadline
"""
"""A cell of pure Python that computes until a click on stage3 has reached Python."""

TRAIN = """
    import time, torch
    optimizer = torch.optim.SGD(demo.model.parameters(), lr=1e-4)
    demo.model.train()
    steps, deadline = 0, time.time() + 30
    print("training")
    while w.selection["layer"] != "stage3" and time.time() < deadline:
        loss = torch.nn.functional.cross_entropy(demo.model(demo.inputs), demo.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    demo.model.training and steps > 0 and time.time() < deadline
"""


def start(lab, *cells) -> ExplorerPage:
    notebook = lab.open([SHAPES, *cells])
    notebook.run(0)
    page = ExplorerPage(notebook)
    page.wait("ready")
    return page


def test_clicks_are_answered_while_a_cell_computes(lab):
    explorer = start(lab, SPIN)
    explorer.notebook.run(1, wait=False)
    explorer.notebook.cell(1).locator(".jp-OutputArea", has_text="computing").wait_for()
    explorer.click_layer("stage1")
    channel = explorer.strongest()
    explorer.click_pixel(channel, 20, 20, (64, 64))
    assert explorer.notebook.running(1), "the cell still computes, and yet both clicks were answered"
    explorer.click_layer("stage3")
    explorer.notebook.wait_end(1)
    assert explorer.notebook.output_text(1).split()[-1] == "True", "the click ended it, not the deadline"


def test_clicks_are_answered_while_a_cell_trains_and_training_is_left_alone(lab):
    explorer = start(lab, TRAIN)
    explorer.notebook.run(1, wait=False)
    explorer.notebook.cell(1).locator(".jp-OutputArea", has_text="training").wait_for()
    explorer.click_layer("stage1")
    explorer.click_layer("stem")
    assert explorer.notebook.running(1)
    explorer.click_name("stage3")
    explorer.wait_maps("stage3")
    explorer.notebook.wait_end(1)
    assert explorer.notebook.output_text(1).split()[-1] == "True", (
        "still in train mode, and ended by the click"
    )


def test_a_click_does_not_take_away_the_figure_that_a_cell_is_drawing(lab):
    explorer = start(
        lab,
        """
        import matplotlib.pyplot as plt, time
        figure, axes = plt.subplots(figsize=(2, 2))
        print("drawing")
        deadline = time.time() + 20
        while w.selection["layer"] != "stage2" and time.time() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        axes.plot([1, 2])
        plt.show()
        """,
    )
    explorer.notebook.run(1, wait=False)
    explorer.notebook.cell(1).locator(".jp-OutputArea", has_text="drawing").wait_for()
    explorer.click_layer("stage2")
    explorer.notebook.wait_end(1)
    assert explorer.notebook.cell(1).locator("img").count() == 1


def test_changed_weights_are_said_and_a_refresh_reads_them(lab):
    explorer = start(lab, "with torch.no_grad(): demo.model.stem.conv.weight.mul_(0.5)")
    explorer.click_layer("stage1")
    explorer.notebook.run(1)
    explorer.click_name("stem")
    explorer.wait("stale")
    explorer.root.get_by_role("button", name=re.compile("refresh")).click()
    explorer.wait("ready")
    explorer.wait_maps("stem")
    assert explorer.notebook.python(
        "bool((w.feature_maps == demo.model.stem(demo.inputs[:1])[0].detach().numpy()).all())"
    )


def test_refresh_inside_a_training_loop_shows_a_consistent_moment(lab):
    explorer = start(
        lab,
        """
        import torch
        optimizer = torch.optim.SGD(demo.model.parameters(), lr=1e-3)
        demo.model.train()
        for step in range(3):
            torch.nn.functional.cross_entropy(demo.model(demo.inputs), demo.targets).backward()
            optimizer.step()
            w.refresh()
        demo.model.eval();
        """,
    )
    explorer.click_layer("stage1")
    explorer.notebook.run(1)
    explorer.wait("ready")
    explorer.wait_maps("stage1")
    best = explorer.notebook.python("int(demo.model(demo.inputs[:1]).argmax())")
    explorer.root.locator(f'.nn-class:first-child[data-class="{best}"]').wait_for()


def test_without_subshells_a_busy_kernel_is_said_and_answers_when_it_is_free(lab):
    explorer = start(
        lab,
        """
        import time
        for _ in range(40):
            time.sleep(0.1)
        """,
    )
    # What JupyterLab does with an ipykernel older than 7, and VS Code and Colab with any.
    explorer.page.evaluate(
        "path => { panels[path].sessionContext.session.kernel.commsOverSubshells = 'disabled'; }",
        explorer.notebook.path,
    )
    explorer.click_layer("stage1")  # the last word of a subshell is heard: from here on all goes in order
    explorer.notebook.run(1, wait=False)
    explorer.click_name("stage2")
    explorer.wait("busy")
    assert "busy" in explorer.say()
    explorer.wait_maps("stage2")
    explorer.wait("ready")


def test_a_dead_kernel_is_said_and_the_picture_stays(lab):
    lab.expect_error("")
    explorer = start(lab)
    explorer.click_layer("stage2")
    explorer.page.evaluate("path => panels[path].sessionContext.shutdown()", explorer.notebook.path)
    explorer.wait("dead")
    assert explorer.node("stage2").is_visible()
    assert explorer.tiles.count() > 0
    assert "kernel" in explorer.say().lower()


def test_after_a_restart_running_the_cell_again_brings_it_back(lab):
    lab.expect_error("")
    explorer = start(lab)
    explorer.click_layer("stage1")
    explorer.page.evaluate("path => panels[path].sessionContext.restartKernel()", explorer.notebook.path)
    explorer.wait("dead")
    explorer.notebook.run(0)
    explorer.wait("ready")
    explorer.click_layer("stem")


def test_a_slow_first_pass_shows_its_progress_and_can_be_cancelled(lab):
    notebook = lab.open(
        [
            """
            import time, torch, nnviz_widget as nnviz

            class Slow(torch.nn.Module):
                def forward(self, x):
                    time.sleep(0.1)
                    return x + 1

            w = nnviz.explore(torch.nn.Sequential(*(Slow() for _ in range(150))), torch.zeros(1, 1, 4, 4))
            w
            """
        ]
    )
    notebook.run()
    explorer = ExplorerPage(notebook)
    explorer.wait("loading")
    explorer.root.get_by_role("progressbar").wait_for()
    explorer.root.get_by_text(re.compile(r"^\d+ of 1\d\d$")).wait_for()
    explorer.root.get_by_role("button", name="Cancel").click()
    explorer.root.get_by_role("progressbar").wait_for(state="detached", timeout=3000)
    explorer.root.get_by_role("button", name="Try again").click()
    explorer.wait("loading")


def test_a_model_that_raises_on_one_sample_keeps_the_others(lab):
    notebook = lab.open(
        [
            """
            import torch, nnviz_widget as nnviz

            class Picky(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)

                def forward(self, x):
                    if x.flatten()[0] > 100:
                        raise ValueError("this sample is too bright")
                    return self.conv(x)

            x = torch.rand(3, 1, 8, 8)
            x[1, 0, 0, 0] = 200
            w = nnviz.explore(Picky(), x)
            w
            """
        ]
    )
    notebook.run()
    explorer = ExplorerPage(notebook)
    explorer.wait("ready")
    explorer.click_layer("conv")
    explorer.input.locator('[data-sample="1"]').click()
    explorer.root.get_by_role("alert").filter(has_text="this sample is too bright").wait_for()
    shown = explorer.input.locator('button[aria-pressed="true"]').get_attribute("data-sample")
    assert shown == explorer.input.get_attribute("data-sample") == "0", "what is on the screen stays"
    explorer.input.locator('button[data-sample="2"]').click()
    explorer.root.locator('[data-panel="input"][data-sample="2"]').wait_for()
    explorer.wait_maps("conv")
    assert explorer.root.get_by_role("alert").count() == 0
