import importlib.util
import re
import sys

import httpx
import pytest

from tests.serving import chromium
from tests.serving.fakes import FakeDecoder, say, served

HAS_A_PAGE = importlib.util.find_spec("fastapi_offline") is not None
with_a_page = pytest.mark.skipif(not HAS_A_PAGE, reason="fastapi-offline is not installed")


@with_a_page
def test_the_page_names_files_of_this_server_alone():
    with served(FakeDecoder(say(""))) as address:
        page = httpx.get(f"{address}/docs")
        assert page.status_code == 200
        files = re.findall(r'(?:src|href)="([^"]*)"', page.text)
        assert len(files) == 3
        assert "http" not in page.text.replace("http-equiv", "")
        for file in files:
            assert httpx.get(address + file).status_code == 200, file
        assert b"/openapi.json" in page.content


@with_a_page
@pytest.mark.browser
def test_it_lists_the_routes_and_asks_no_other_host():
    driver = chromium.start()
    try:
        with served(FakeDecoder(say(""))) as address:
            driver.get(f"{address}/docs")
            listed = chromium.WebDriverWait(driver, 30).until(
                lambda one: one.find_elements(chromium.By.CSS_SELECTOR, ".opblock-summary-path")
            )
            assert "/v1/blanks" in [one.text for one in listed]
            asked = driver.execute_script(
                "return performance.getEntriesByType('resource').map((one) => one.name)"
            )
            assert len(asked) >= 3
            assert all(one.startswith((address, "data:")) for one in asked), asked
    finally:
        driver.quit()


def test_without_the_package_the_page_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi_offline", None)
    with served(FakeDecoder(say(""))) as address:
        found = httpx.get(f"{address}/docs")
        assert found.status_code == 404
        assert "needs the package fastapi-offline" in found.json()["error"]["message"]
        assert "/v1/blanks" in httpx.get(f"{address}/openapi.json").json()["paths"]
