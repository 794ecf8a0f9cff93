"""A headless Chromium for tests of the page, and what a person does in it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

INSTALL = Path(__file__).parents[2] / "tools" / "install_chromium.sh"
# Violations of the page's policy, which are events and no errors of scripts.
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def start():
    """A browser; skips where there is none and none can be installed."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        try:
            subprocess.run([INSTALL], capture_output=True, text=True, check=True, timeout=300)
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
            pytest.skip(f"no chromium and chromedriver, and {INSTALL.name} failed: {said}")
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium")
    arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    for one in arguments:
        options.add_argument(one)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, Service(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
    return driver


class Person:
    """What a person does on the page, and sees."""

    def __init__(self, driver, address):
        self.driver, self.address = driver, address

    def visits(self, width=1000, height=1400, **media):
        """Loads the page. media: prefers_color_scheme="dark", .."""
        features = [{"name": k.replace("_", "-"), "value": v} for k, v in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(self.address)
        self.driver.execute_script("sessionStorage.clear()")
        self.driver.get(self.address)
        self.waits(lambda: self.shown("#blanks") or self.shown("#chat") or self.shown("#notice"))
        return self

    def wants_short_answers(self):
        """Of four tokens: a model of random parameters ends few by itself."""
        self.runs("document.getElementById('longest').value = 4")
        return self

    def waits(self, condition, seconds=20):
        return WebDriverWait(
            self.driver, seconds, 0.03, ignored_exceptions=[StaleElementReferenceException]
        ).until(lambda _: condition())

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css, index=0):
        return self.waits(lambda: self.all(css)[index:][:1])[0]

    def shown(self, css):
        return any(one.is_displayed() for one in self.all(css))

    def text(self, css):
        return self.one(css).text

    def texts(self, css):
        return [one.text for one in self.all(css)]

    def clicks(self, css, index=0):
        self.one(css, index).click()

    def word(self, text):
        return self.waits(lambda: [one for one in self.all(".word") if one.text == text])[0]

    def presses(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)

    @property
    def focus(self):
        return self.driver.switch_to.active_element

    def types_sentence(self, text):
        self.clicks("#edit")
        self.one("#own").clear()
        self.one("#own").send_keys(text, Keys.ENTER)

    def fills(self):
        self.clicks("#fill")
        return self.waits(
            lambda: self.text("#status").startswith("Filled") or self.shown("#problem")
        )

    def runs(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def look(self, network=False):
        """What must never be: errors of scripts, violations of the policy, requests elsewhere.

        Args:
          network: responses with an error status are expected.
        """
        severe = [one for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]
        assert [one for one in severe if not (network and one["source"] == "network")] == []
        assert self.runs("return window.violations") == []
        names = self.runs("return performance.getEntriesByType('resource').map((one) => one.name)")
        assert names
        assert all(name.startswith(f"{self.address}/") for name in names), names
