// SPDX-License-Identifier: Apache-2.0
// Puts the page together.

import {apiEvents, getJson} from "./api.js";
import {Chat} from "./chat.js";
import {byId, disclose} from "./dom.js";
import {Feed} from "./feed.js";
import {startKey} from "./key.js";
import {chosenModel, loadModels, startModels} from "./models.js";
import {startSettings} from "./settings.js";
import {WorldPanel} from "./world.js";

const RETRY_MS = 2000;
const narrow = matchMedia("(max-width: 59.99rem)"); // as in style.css: one panel at a time

const feed = new Feed(chosenModel);
const openSettings = disclose(byId("settings-toggle"), byId("settings"), (open) => {
  if (open) {
    panel.yield();
    byId("set-system").focus();
  }
});
const panel = new WorldPanel(feed, chosenModel, (open) => open && narrow.matches && openSettings(false));

async function loadFeatures() {
  try {
    const {features} = await getJson("/discovery");
    panel.allowFaults(Array.isArray(features) && features.includes("faults"));
  } catch {
    // An older server, or one that wants a key first: no button.
  }
}

// A server that is still starting is asked again; one that wants a key, once there is one.
async function introduce() {
  let locked = false;
  apiEvents.addEventListener("unauthorized", () => { locked = true; }, {once: true});
  if (await loadModels()) {
    await loadFeatures();
    feed.soon();
  } else if (!locked) {
    feed.soon();
    setTimeout(introduce, RETRY_MS);
  }
}

startKey();
startSettings();
startModels(() => feed.soon());
new Chat(feed, chosenModel);
apiEvents.addEventListener("key", introduce);
introduce();
byId("prompt").focus({preventScroll: true});
