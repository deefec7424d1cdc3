"""MLflow's own interface, served for real, shows what was logged: the run, its metrics, tables and page."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from browser import browser, needs_browser, photograph
from mlflow import MlflowClient
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = [needs_browser, pytest.mark.slow]
ASK = ("--methods", "prototype,clip", "--shots", "0,2", "--draws", "2")
PATIENCE = 180  # seconds; a busy machine needs many


@pytest.fixture
def served(bench, tmp_path) -> Iterator[tuple[str, MlflowClient]]:
    """The address of an MLflow server over the results of a run and its report, and a client."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert bench(*ASK, "--mlflow-uri", uri).code == 0
    assert bench(*ASK, "--mlflow-uri", uri, command="report").code == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--workers", "1"], stdout=log, stderr=log, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: urllib.request.urlopen(f"{address}/health", timeout=5).status == 200)
        yield address, MlflowClient(tracking_uri=uri)
    finally:
        server.terminate()
        server.wait(60)


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < end, "it never came"
        time.sleep(0.5)


def wait_for(driver: Chrome, *texts: str) -> None:
    """Until the page shows all of the texts."""
    missing = list(texts)

    def shown(_: Chrome) -> bool:
        body = driver.find_element(By.TAG_NAME, "body").text
        missing[:] = [text for text in texts if text not in body]
        return not missing

    try:
        WebDriverWait(driver, PATIENCE, 0.5, [WebDriverException]).until(shown)
    except TimeoutException:
        pytest.fail(f"{driver.current_url} lacks {missing}")


def click(driver: Chrome, text: str) -> None:
    def clicked(_: Chrome) -> bool:
        driver.find_element(By.XPATH, f"//*[normalize-space(text())='{text}']").click()
        return True

    WebDriverWait(driver, PATIENCE, 0.5, [WebDriverException]).until(clicked)


def test_the_interface_shows_runs_metrics_tables_and_page(served: tuple[str, MlflowClient], tmp_path) -> None:
    address, client = served
    experiment = client.get_experiment_by_name("xshot-bench").experiment_id
    (parent,) = client.search_runs([experiment], "tags.kind = 'invocation'")
    children = client.search_runs([experiment], "tags.kind = 'cell' and params.shots = '2' and params.seed = '0'")
    first, second = sorted(children, key=lambda run: run.data.params["method"])
    split = first.data.tags["split_digest"]
    home = f"{address}/#/experiments/{experiment}"
    with browser((1500, 1100)) as driver:
        driver.get(f"{home}/runs")
        wait_for(driver, "manifest X=0,2", "9 matching runs")
        photograph(driver, "mlflow-runs", tmp_path)

        driver.get(f"{home}/runs/{parent.info.run_id}")
        wait_for(driver, "manifest X=0,2", "Finished", f"({split[:8]}", "mAP@all in %")
        photograph(driver, "mlflow-invocation", tmp_path)

        driver.get(f"{home}/runs/{parent.info.run_id}/model-metrics")
        wait_for(driver, "manifest/prototype/difference", "manifest/clip/i2t")
        photograph(driver, "mlflow-metrics", tmp_path)

        driver.get(f"{home}/runs/{parent.info.run_id}/artifacts")
        wait_for(driver, "report.html", "figures")
        click(driver, "tables")
        click(driver, "methods.json")
        wait_for(driver, "View as table", "shots", "prototype")
        photograph(driver, "mlflow-table", tmp_path)
        click(driver, "report.html")
        WebDriverWait(driver, PATIENCE).until(lambda d: d.find_elements(By.TAG_NAME, "iframe"))
        driver.switch_to.frame(driver.find_element(By.TAG_NAME, "iframe"))
        wait_for(driver, "2 methods on manifest", "How to read it")
        driver.find_element(By.ID, "tab-examples").click()
        wait_for(driver, "What was found", "class-")
        driver.switch_to.default_content()
        photograph(driver, "mlflow-page", tmp_path)

        driver.get(f"{home}/runs/{first.info.run_id}")
        wait_for(driver, "i2t/mAP", str(first.data.metrics["i2t/mAP"])[:8], split[:8])
        photograph(driver, "mlflow-cell", tmp_path)

        runs = ",".join(f"%22{run.info.run_id}%22" for run in (first, second))
        driver.get(f"{address}/#/compare-runs?runs=[{runs}]&experiments=[%22{experiment}%22]")
        wait_for(driver, "Comparing 2 Runs", "clip manifest X=2 draw 0", "prototype manifest X=2 draw 0")
        text = driver.find_element(By.TAG_NAME, "body").text
        for run in (first, second):
            assert run.data.params["method"] in text
            assert f"{round(run.data.metrics['mAP'], 3):g}" in text
        photograph(driver, "mlflow-compare", tmp_path)
