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

const feed = new Feed(chosenModel);
const panel = new WorldPanel(feed, chosenModel);

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
disclose(byId("settings-toggle"), byId("settings"), (open) => open && byId("set-system").focus());
new Chat(feed, chosenModel);
apiEvents.addEventListener("key", introduce);
introduce();
byId("prompt").focus({preventScroll: true});
