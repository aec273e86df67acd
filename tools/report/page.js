"use strict";

/** Plays the stems in step: they start at the same moment of one clock, each with its own gain. */
class Player {
  constructor(stems, seconds) {
    this.stems = stems;
    this.seconds = seconds;
    this.muted = new Set();
    this.soloed = new Set();
    this.gains = {};
    this.playing = false;
    this.context = null;
    this.prepared = null;
    this.buffers = null;
    this.sources = [];
    this.offset = 0;
    this.ended = () => {};
  }

  /** The playback position, in seconds. */
  get position() {
    const at = this.playing ? this.context.currentTime - this.began : this.offset;
    return Math.min(Math.max(at, 0), this.seconds);
  }

  heard(stem) {
    return !this.muted.has(stem) && (this.soloed.size === 0 || this.soloed.has(stem));
  }

  /** Decode once; browsers allow sound only after a click or a key. */
  prepare() {
    this.prepared ??= this.decode();
    return this.prepared;
  }

  async decode() {
    this.context = new AudioContext();
    const decoded = this.stems.map((stem) => this.context.decodeAudioData(embedded(stem)));
    const buffers = await Promise.all(decoded);
    for (const stem of this.stems) {
      this.gains[stem] = this.context.createGain();
      this.gains[stem].connect(this.context.destination);
    }
    this.buffers = Object.fromEntries(this.stems.map((stem, number) => [stem, buffers[number]]));
    this.balance();
  }

  async play() {
    await this.prepare();
    await this.context.resume();
    if (this.playing) return;
    if (this.offset >= this.seconds) this.offset = 0;
    this.start();
  }

  start() {
    const soon = this.context.currentTime + 0.02;
    this.sources = this.stems.map((stem) => {
      const source = new AudioBufferSourceNode(this.context, { buffer: this.buffers[stem] });
      source.connect(this.gains[stem]);
      source.start(soon, this.offset);
      return source;
    });
    this.began = soon - this.offset;
    this.playing = true;
    this.sources[0].onended = () => {
      this.pause();
      this.offset = 0;
      this.ended();
    };
  }

  pause() {
    if (!this.playing) return;
    this.offset = this.position;
    this.playing = false;
    for (const source of this.sources) {
      source.onended = null;
      source.stop();
    }
  }

  seek(seconds) {
    const went = this.playing;
    this.pause();
    this.offset = Math.min(Math.max(seconds, 0), this.seconds);
    if (went) this.start();
  }

  /** Fade stems in and out, which avoids a click. */
  balance() {
    for (const [stem, gain] of Object.entries(this.gains)) {
      gain.gain.setTargetAtTime(this.heard(stem) ? 1 : 0, this.context.currentTime, 0.008);
    }
  }
}

function embedded(stem) {
  const text = atob(document.getElementById(`sound-${stem}`).textContent);
  return Uint8Array.from(text, (character) => character.charCodeAt(0)).buffer;
}

function embeddedStems() {
  return ["vocals", "instrumental"].filter((stem) => document.getElementById(`sound-${stem}`));
}

function clock(seconds) {
  const [minutes, rest] = [Math.floor(seconds / 60), Math.floor(seconds % 60)];
  return `${minutes}:${String(rest).padStart(2, "0")}`;
}

const desk = document.getElementById("player");
const player = desk && new Player(embeddedStems(), Number(desk.dataset.seconds));

function control() {
  const find = (selector) => desk.querySelector(selector);
  const play = find(".play");
  const slider = find("input[type=range]");
  const time = find(".time output");
  const state = find(".state");
  const playheads = desk.querySelectorAll(".playhead");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const names = { mixture: "the mixture", vocals: "the vocals", instrumental: "the instrumental" };

  const say = (text) => (state.textContent = text);
  const chosen = () => {
    const heard = player.stems.filter((stem) => player.heard(stem));
    return heard.length === 2 ? "mixture" : (heard[0] ?? null);
  };

  function showPosition() {
    const at = player.position;
    const text = clock(at);
    if (time.textContent !== text) {
      time.textContent = text;
      slider.setAttribute("aria-valuetext", `${text} of ${clock(player.seconds)}`);
    }
    slider.value = at;
    slider.style.setProperty("--at", `${(100 * at) / player.seconds}%`);
    for (const playhead of playheads) playhead.style.left = `${(100 * at) / player.seconds}%`;
  }

  function follow() {
    showPosition();
    if (!player.playing) return;
    if (calm.matches) setTimeout(follow, 500);
    else requestAnimationFrame(follow);
  }

  function showPlaying() {
    play.classList.toggle("playing", player.playing);
    play.setAttribute("aria-label", player.playing ? "Pause" : "Play");
  }

  function showBalance() {
    const now = chosen();
    for (const button of desk.querySelectorAll("[data-listen]")) {
      button.setAttribute("aria-pressed", String(button.dataset.listen === now));
    }
    for (const stem of player.stems) {
      if (player.stems.length === 1) break; // it has no switches
      const track = find(`.track.${stem}`);
      track.classList.toggle("silent", !player.heard(stem));
      track.querySelector("[data-switch=mute]").setAttribute("aria-pressed", String(player.muted.has(stem)));
      track.querySelector("[data-switch=solo]").setAttribute("aria-pressed", String(player.soloed.has(stem)));
    }
    player.balance();
    return now;
  }

  const heardNow = (now) => (now ? `You hear ${names[now]}.` : "Both stems are muted.");

  async function toggle() {
    if (player.playing) {
      player.pause();
      say(`Paused at ${clock(player.position)}.`);
    } else {
      if (!player.buffers) say("Preparing the sound…");
      try {
        await player.play();
        say(`Playing. ${heardNow(chosen())}`);
      } catch (error) {
        say(`This browser cannot play the sound (Opus): ${error.message}`);
      }
    }
    showPlaying();
    follow();
  }

  function seek(seconds) {
    player.seek(seconds);
    showPosition();
  }

  function listen(choice) {
    player.muted.clear();
    player.soloed.clear();
    if (choice !== "mixture") player.soloed.add(choice);
    say(heardNow(showBalance()));
  }

  function flip(set, stem) {
    if (!set.delete(stem)) set.add(stem);
    say(heardNow(showBalance()));
  }

  function drag(pictures) {
    const to = (event) => {
      const box = pictures.getBoundingClientRect();
      seek((player.seconds * (event.clientX - box.left)) / box.width);
    };
    pictures.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      pictures.setPointerCapture(event.pointerId);
      to(event);
    });
    pictures.addEventListener("pointermove", (event) => {
      if (pictures.hasPointerCapture(event.pointerId)) to(event);
    });
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 30 : 5;
    const onButton = event.target instanceof HTMLButtonElement;
    const actions = {
      ArrowLeft: () => seek(player.position - step),
      ArrowRight: () => seek(player.position + step),
      Home: () => seek(0),
      End: () => seek(player.seconds),
      ...(player.stems.length === 1
        ? {}
        : {
            1: () => listen("mixture"),
            2: () => listen("vocals"),
            3: () => listen("instrumental"),
          }),
      ...(onButton ? {} : { " ": toggle }),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  play.addEventListener("click", toggle);
  slider.addEventListener("input", () => seek(Number(slider.value)));
  for (const button of desk.querySelectorAll("[data-listen]")) {
    button.addEventListener("click", () => listen(button.dataset.listen));
  }
  for (const button of desk.querySelectorAll("[data-switch]")) {
    const set = button.dataset.switch === "mute" ? player.muted : player.soloed;
    button.addEventListener("click", () => flip(set, button.dataset.stem));
  }
  desk.querySelectorAll(".pictures").forEach(drag);
  document.addEventListener("keydown", press);
  player.ended = () => {
    showPlaying();
    say("The end.");
  };
  showPosition();
}

if (player) control();
