#!/usr/bin/python3
"""A second implementation of the browser leg: speaks a WAV into a room and records what it hears, through the HTTP API alone.

    client.py --api http://127.0.0.1:7330 --token T --room ID --send in.wav --record out.wav --seconds 20

It offers one sending and three receiving tracks (only the latter without --send), unmutes the microphone once it is
connected, and then speaks and records for so many seconds from one starting point. Received frames are placed by their
timestamps, so silence that was never sent is silence in the recording; the slots are added up. One JSON object with the
figures goes to standard output; the exit code is 0 if the leg connected, 1 otherwise.
Needs Python 3.11 or newer, aiortc 1.4 or newer, and what that brings (PyAV, numpy)."""

import argparse
import asyncio
import fractions
import json
import sys
import time
import urllib.parse
import urllib.request
import wave

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

RATE = 48000
TICK = RATE // 50  # samples in 20 ms
SLOTS = 3
CONNECT_SECONDS = 60


class Api:
    """The daemon's HTTP API: only what a leg needs."""

    def __init__(self, url, token):
        self.url, self.token = url, token

    async def call(self, method, path, body=None, kind=None):
        return await asyncio.to_thread(self._call, method, path, body, kind)

    def _call(self, method, path, body, kind):
        request = urllib.request.Request(urllib.parse.urljoin(self.url, path), data=body, method=method)
        request.add_header("Authorization", "Bearer " + self.token)
        if kind:
            request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer:
            return answer.status, answer.headers, answer.read().decode()


def read_wav(name):
    """The samples of a 16-bit WAV as mono at RATE."""
    with wave.open(name) as f:
        if f.getsampwidth() != 2:
            sys.exit(f"{name}: not 16-bit PCM")
        rate, channels = f.getframerate(), f.getnchannels()
        samples = np.frombuffer(f.readframes(f.getnframes()), "<i2")
    mono = samples.reshape(-1, channels).mean(axis=1).astype("<i2")
    if rate == RATE:
        return mono
    frame = av.AudioFrame.from_ndarray(mono.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    parts = [f.to_ndarray().reshape(-1) for f in resampler.resample(frame) + resampler.resample(None)]
    return np.concatenate(parts)


def write_wav(name, samples):
    with wave.open(name, "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(RATE)
        f.writeframes(np.clip(samples, -32768, 32767).astype("<i2").tobytes())


class Microphone(MediaStreamTrack):
    """Silence until speak, then the samples once, then silence: one frame each 20 ms of the clock."""

    kind = "audio"

    def __init__(self, samples):
        super().__init__()
        self.samples, self.position, self.started, self.sent = samples, None, None, 0

    def speak(self):
        self.position = 0

    async def recv(self):
        if self.started is None:
            self.started = time.monotonic()
        await asyncio.sleep(max(0, self.started + self.sent * TICK / RATE - time.monotonic()))
        chunk = np.zeros(TICK, "<i2")
        if self.position is not None:
            part = self.samples[self.position : self.position + TICK]
            chunk[: len(part)] = part
            self.position += TICK
        frame = av.AudioFrame.from_ndarray(chunk.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.time_base = RATE, fractions.Fraction(1, RATE)
        frame.pts = self.sent * TICK
        self.sent += 1
        return frame


class Slot:
    """One received track: its frames by the place that their timestamps give them, counted from the first."""

    def __init__(self):
        self.frames, self.first_at, self.last, self.position = [], None, None, 0

    async def listen(self, track):
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self.take(frame, time.monotonic())

    def take(self, frame, now):
        if self.first_at is None:
            self.first_at = now
        else:
            step = (frame.pts - self.last) & 0xFFFFFFFF  # timestamps have 32 bits
            self.position += step - (1 << 32) if step >= 1 << 31 else step
        self.last = frame.pts
        samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels)).mean(axis=1)
        self.frames.append((self.position, samples))

    def add_to(self, out, start):
        """Adds what was heard to out, which begins at the clock time start."""
        if self.first_at is None:
            return
        base = round((self.first_at - start) * RATE)
        for position, samples in self.frames:
            a, b = base + position, base + position + len(samples)
            lo, hi = max(a, 0), min(b, len(out))
            if lo < hi:
                out[lo:hi] += samples[lo - a : hi - a]


async def run(args):
    api = Api(args.api, args.token)
    room = "/api/v1/rooms/" + urllib.parse.quote(args.room, safe="")
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    microphone = Microphone(read_wav(args.send)) if args.send else None
    if microphone:
        pc.addTransceiver(microphone, direction="sendonly")
    for _ in range(SLOTS):
        pc.addTransceiver("audio", direction="recvonly")
    slots, listeners = [], []

    @pc.on("track")
    def on_track(track):
        slots.append(Slot())
        listeners.append(asyncio.ensure_future(slots[-1].listen(track)))

    connected = asyncio.get_running_loop().create_future()

    @pc.on("connectionstatechange")
    def on_state():
        if not connected.done() and pc.connectionState in ("connected", "failed", "closed"):
            connected.set_result(pc.connectionState == "connected")

    began = time.monotonic()
    await pc.setLocalDescription(await pc.createOffer())
    _, headers, answer = await api.call("POST", room + "/audio", pc.localDescription.sdp.encode(), "application/sdp")
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    try:
        ok = await asyncio.wait_for(connected, CONNECT_SECONDS)
    except asyncio.TimeoutError:
        ok = False
    result = {"connected": ok, "connect_ms": round(1000 * (time.monotonic() - began))}
    if ok:
        if microphone and not args.muted:
            await api.call("PUT", room + "/microphone", b'{"muted":false}', "application/json")
        start = time.monotonic()
        if microphone:
            microphone.speak()
        await asyncio.sleep(args.seconds)
        heard = np.zeros(round(args.seconds * RATE))
        for slot in slots:
            slot.add_to(heard, start)
        if args.record:
            write_wav(args.record, heard)
        result["sent"] = microphone.sent if microphone else 0
        result["slots"] = [
            {"frames": len(s.frames), "first_ms": s.first_at and round(1000 * (s.first_at - start))} for s in slots
        ]
    await api.call("DELETE", urllib.parse.urljoin(room + "/audio", headers["Location"]))
    await pc.close()
    for listener in listeners:
        listener.cancel()
    await asyncio.gather(*listeners, return_exceptions=True)
    print(json.dumps(result))
    return 0 if ok else 1


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--api", required=True, help="url of api.json")
    p.add_argument("--token", required=True, help="token of api.json")
    p.add_argument("--room", required=True)
    p.add_argument("--send", help="WAV to speak, 16-bit PCM; without it only listens")
    p.add_argument("--muted", action="store_true", help="do not unmute the microphone")
    p.add_argument("--record", help="WAV to write: what was heard, mono, 48 kHz")
    p.add_argument("--seconds", type=float, default=10)
    sys.exit(asyncio.run(run(p.parse_args())))


if __name__ == "__main__":
    main()
