"""Drive headless Chromium with playwright-core. WebGL is drawn in software, so no GPU is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Reads a JSON list of steps from standard input, runs them in one page, and prints what they returned. Everything that
# the page logged, threw or requested is reported too.
SCRIPT = """
const { chromium } = require(process.argv[1]);
const steps = JSON.parse(require("fs").readFileSync(0, "utf8"));
(async () => {
  const browser = await chromium.launch({
    executablePath: process.argv[2], headless: true,
    args: ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
  });
  const context = await browser.newContext(steps.context);
  context.setDefaultTimeout(120000); // machines may be busy
  const page = await context.newPage();
  const logs = [], requests = [], results = [];
  let cpu;
  page.on("console", (message) => logs.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => logs.push(`error: ${error.message}`));
  page.on("request", (request) => requests.push(request.url()));
  try {
    await page.goto(steps.url);
    // Not waitForFunction, which evaluates texts in the page, where its content security policy forbids it.
    for (const end = Date.now() + 60000; !(await page.evaluate(`Boolean(${steps.ready})`)); ) {
      if (Date.now() > end) throw new Error(`the page did not become ready: ${logs.join("; ")}`);
      await page.waitForTimeout(50);
    }
    for (const [kind, argument, more] of steps.actions) {
      if (kind === "evaluate") results.push(await page.evaluate(argument));
      else if (kind === "screenshot") results.push(await page.screenshot({ path: argument }) && null);
      else if (kind === "scheme") results.push(await page.emulateMedia({ colorScheme: argument }));
      else if (kind === "touch") {
        const session = await context.newCDPSession(page);
        for (const [type, points] of argument) {
          await session.send("Input.dispatchTouchEvent", { type, touchPoints: points });
        }
        results.push(null);
      } else if (kind === "drag") {
        const [from, to] = argument;
        await page.mouse.move(...from);
        await page.mouse.down();
        await page.mouse.move(...to, { steps: 4 });
        await page.mouse.up();
        results.push(null);
      } else if (kind === "wheel") results.push(await page.mouse.wheel(0, argument));
      else if (kind === "select") results.push(await page.selectOption(argument, more));
      else if (kind === "click") results.push(await page.click(argument));
      else if (kind === "fill") results.push(await page.fill(argument, more));
      else if (kind === "press") results.push(await page.press(argument, more));
      else if (kind === "wait") {
        for (const end = Date.now() + 60000; !(await page.evaluate(`Boolean(${argument})`)); ) {
          if (Date.now() > end) throw new Error(`${argument} did not become true: ${logs.join("; ")}`);
          await page.waitForTimeout(50);
        }
        results.push(null);
      } else if (kind === "download") {
        const [download] = await Promise.all([page.waitForEvent("download"), page.click(argument)]);
        const path = require("path").join(more, download.suggestedFilename());
        await download.saveAs(path);
        results.push(path);
      } else if (kind === "film") { // evaluates each expression, and takes a picture of a part of the page after each
        const { expressions, folder, clip } = argument, values = [];
        for (const [i, expression] of expressions.entries()) {
          await page.evaluate(expression);
          await page.screenshot({ path: `${folder}/${String(i).padStart(4, "0")}.png`, clip });
          values.push(await page.evaluate(more));
        }
        results.push(values);
      } else if (kind === "heap") {
        const session = await context.newCDPSession(page);
        await session.send("HeapProfiler.collectGarbage");
        results.push((await session.send("Runtime.getHeapUsage")).usedSize);
      } else if (kind === "cpu") { // CPU seconds of the page's main thread since the first such action
        if (!cpu) await (cpu = await context.newCDPSession(page)).send("Performance.enable");
        const { metrics } = await cpu.send("Performance.getMetrics");
        results.push(metrics.find(({ name }) => name === "ThreadTime").value);
      }
      else throw new Error(`unknown action ${kind}`);
    }
  } finally {
    console.log(JSON.stringify({ logs, requests, results }));
    await browser.close();
  }
})();
"""


def browser() -> Callable[..., dict[str, Any]]:
    """Return a function that opens a page and runs actions in it; skip the test where Chromium is not installed.

    The function takes the page's URL or path, actions as [kind, argument], the expression that becomes true when the
    page is ready, and options of playwright's `newContext`. It returns {"logs", "requests", "results"}.
    """
    package = os.environ.get("MENAGERIE_PLAYWRIGHT")
    folders = (
        [Path(package)]
        if package
        else [parent / "node_modules/playwright-core" for parent in Path(__file__).resolve().parents]
    )
    folders = [path for path in folders if (path / "package.json").exists()]
    node, chromium = shutil.which("node"), shutil.which("chromium") or shutil.which("chromium-browser")
    if not (node and chromium and folders):
        pytest.skip(
            "tests of pages need Chromium (`apt-get install chromium`), node and the npm package playwright-core "
            "(`npm install playwright-core` in the checkout, or MENAGERIE_PLAYWRIGHT=its folder)"
        )

    def run(page: Path | str, actions: list, ready: str = "window.player", **context: Any) -> dict[str, Any]:
        url = page if isinstance(page, str) else page.resolve().as_uri()
        steps = {"url": url, "ready": ready, "actions": actions, "context": context}
        done = subprocess.run(
            [node, "-e", SCRIPT, str(folders[0]), chromium], input=json.dumps(steps), capture_output=True, text=True,
            timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    return run
