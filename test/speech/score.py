#!/usr/bin/python3
"""How well a recording of a call carries the speech that was spoken into it.

usage: score.py SOURCE.wav HEARD.wav [...]   prints one JSON object a recording:
  rho_median, rho_n        correlation of 200 ms pieces, each at its best lag within 60 ms, 100 to 7000 Hz
  estoi_median, estoi_p10, estoi_p90  ESTOI (Jensen & Taal 2016) of every spoken 3 s, each aligned alone within 300 ms
  lag_ms                   where the source begins in the recording

The recording may begin anywhere, and a jitter buffer may have stretched it: one coarse alignment over the
whole, then each piece is aligned alone."""
import json
import sys
import wave

import numpy as np
from scipy.signal import butter, correlate, resample_poly, sosfiltfilt

RATE, FRAME, FFT, BANDS, LOWEST, SPAN, DYNAMIC = 10000, 256, 512, 15, 150.0, 30, 40.0


def load(path):
    with wave.open(path) as w:
        x = np.frombuffer(w.readframes(w.getnframes()), '<i2').astype(float) / 32768
        return x.reshape(-1, w.getnchannels()).mean(1), w.getframerate()


def third_octaves():
    f = np.linspace(0, RATE, FFT + 1)[:FFT // 2 + 1]
    centre = 2 ** (np.arange(BANDS) / 3.0) * LOWEST
    m = np.zeros((BANDS, len(f)))
    for i, c in enumerate(centre):
        low, high = (np.argmin((f - c * 2 ** e) ** 2) for e in (-1 / 6, 1 / 6))
        m[i, low:high] = 1
    return m


MATRIX, WINDOW = third_octaves(), np.hanning(FRAME + 2)[1:-1]


def frames(x):
    return np.lib.stride_tricks.sliding_window_view(x, FRAME)[::FRAME // 2] * WINDOW


def without_silence(x, y):
    fx, fy = frames(x), frames(y)
    energy = 20 * np.log10(np.linalg.norm(fx, axis=1) + 1e-12)
    keep = energy > energy.max() - DYNAMIC

    def overlap_add(f):
        out = np.zeros((len(f) + 1) * FRAME // 2)
        for i, v in enumerate(f):
            out[i * FRAME // 2:i * FRAME // 2 + FRAME] += v
        return out
    return overlap_add(fx[keep]), overlap_add(fy[keep])


def bands(x):
    return np.sqrt(MATRIX @ (np.abs(np.fft.rfft(frames(x), FFT).T) ** 2))


def estoi(x, y, rate):
    g = np.gcd(RATE, rate)
    x, y = (resample_poly(v, RATE // g, rate // g) for v in (x, y))
    n = min(len(x), len(y))
    x, y = without_silence(x[:n], y[:n])
    window = np.lib.stride_tricks.sliding_window_view
    xs, ys = (window(bands(v), SPAN, axis=1).transpose(1, 0, 2) for v in (x, y))

    def normal(a, axis):
        b = a - a.mean(axis, keepdims=True)
        return b / (np.linalg.norm(b, axis=axis, keepdims=True) + 1e-12)
    return float((normal(normal(xs, 2), 1) * normal(normal(ys, 2), 1)).sum((1, 2)).mean() / SPAN)


def rms(x):
    return float(np.sqrt(np.mean(x * x) + 1e-20))


def pieces(x, y, rate, seconds, slack, loud):
    """Yields pieces of x with the stretch of y around them; x starts at lag in y."""
    lag = int(np.argmax(correlate(y, x, mode='full', method='fft'))) - (len(x) - 1)
    n, r, level = int(seconds * rate), int(slack * rate), rms(x)
    for p in range(0, len(x) - n + 1, n):
        a, q = x[p:p + n], p + lag
        if rms(a) < loud * level or q - r < 0 or q + n + r > len(y):
            continue
        yield a, y[q - r:q + n + r], lag


def score(x, rate, y, rate_y):
    if rate_y != rate:
        g = np.gcd(rate, rate_y)
        y = resample_poly(y, rate // g, rate_y // g)
    if rms(y) < 1e-6:
        return dict(rho_median=0.0, rho_n=0, estoi_median=0.0, estoi_p10=0.0, estoi_p90=0.0, estoi_n=0, lag_ms=0)
    stois, lag = [], 0
    for a, b, lag in pieces(x, y, rate, 3.0, .3, .3):
        k = int(np.argmax(correlate(b, a, mode='valid', method='fft')))
        stois.append(estoi(a, b[k:k + len(a)], rate))
    band = butter(4, [100, 7000], 'band', fs=rate, output='sos')
    fx, fy = sosfiltfilt(band, x), sosfiltfilt(band, y)
    rhos = []
    for a, b, _ in pieces(fx, fy, rate, .2, .06, .5):
        c = correlate(b, a, mode='valid', method='fft')
        e = np.sqrt(np.maximum(np.convolve(b * b, np.ones(len(a)), mode='valid'), 1e-12) * np.dot(a, a))
        rhos.append(float(np.max(c / e)))
    middle = lambda v: round(float(np.median(v)), 4) if v else 0.0
    return dict(rho_median=middle(rhos), rho_n=len(rhos), estoi_median=middle(stois), estoi_n=len(stois),
                estoi_p10=round(float(np.percentile(stois, 10)), 4) if stois else 0.0,
                estoi_p90=round(float(np.percentile(stois, 90)), 4) if stois else 0.0, lag_ms=round(1000 * lag / rate))


if __name__ == '__main__':
    source, source_rate = load(sys.argv[1])
    for path in sys.argv[2:]:
        heard, heard_rate = load(path)
        print(json.dumps(dict(file=path.split('/')[-1], **score(source, source_rate, heard, heard_rate))))
