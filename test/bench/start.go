package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	idleTime = 20 * time.Second
	starts   = 5
	joiners  = 10
	// joinPause is longer than the second that an admitter leaves between two admissions, so that nobody waits for the
	// one before.
	joinPause = 1500 * time.Millisecond
)

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// sizes are those of the page, each file gzipped by itself as a server would, and of the binary.
func sizes(_ context.Context, l *lab) ([]figure, error) {
	var page counter
	err := filepath.WalkDir(filepath.Join(l.root, "node/web/dist"), func(path string, d fs.DirEntry, err error) error {
		switch filepath.Ext(path) {
		case ".js", ".css", ".html":
		default:
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		z := gzip.NewWriter(&page)
		if _, err := z.Write(data); err != nil {
			return err
		}
		return z.Close()
	})
	if err != nil {
		return nil, err
	}
	all := []figure{plain("page bundle, gzipped", float64(page)/1e3, "kB").gate(150, 80)}
	info, err := os.Stat(l.binary)
	if err == nil {
		all = append(all, plain("binary", float64(info.Size())/1e6, "MB"))
	}
	return all, err
}

// idle looks at a daemon that has nothing to do.
func idle(ctx context.Context, l *lab) ([]figure, error) {
	d, err := l.daemon(ctx, "idle")
	if err != nil {
		return nil, err
	}
	defer d.stop()
	start, err := d.cpu()
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(idleTime):
	}
	rss, err := d.status("VmRSS")
	if err != nil {
		return nil, err
	}
	own, err := d.status("RssAnon")
	if err != nil {
		return nil, err
	}
	end, err := d.cpu()
	return []figure{
		plain("idle daemon, RSS after 20 s", rss*1024/1e6, "MB").gate(80, 40),
		plain("idle daemon, RSS without the pages of files", own*1024/1e6, "MB"),
		plain("idle daemon, CPU", float64((end-start).Milliseconds())/idleTime.Seconds(), "ms/s"),
		plain("start of a daemon, CPU", float64(start.Milliseconds()), "ms"),
	}, err
}

// coldStart starts daemons with a new data folder, and has a browser that already runs open their pages.
func coldStart(ctx context.Context, l *lab) ([]figure, error) {
	b, err := l.browser(ctx, "")
	if err != nil {
		return nil, err
	}
	defer b.close()
	var ready, answered, usable []float64
	for range starts {
		d, err := l.daemon(ctx, "")
		if err != nil {
			return nil, err
		}
		a, u, err := firstPage(ctx, d, b)
		d.stop()
		if err != nil {
			return nil, err
		}
		ready, answered, usable = append(ready, d.ready.Seconds()), append(answered, a.Seconds()), append(usable, u.Seconds())
	}
	return []figure{
		plain("cold start, exec to api.json, median", median(ready), "s"),
		plain("cold start, exec to the page's HTML, median", median(answered), "s"),
		plain("cold start, exec to the page usable, median", median(usable), "s").gate(1.5, 0.5),
	}, nil
}

// firstPage gives the times from exec until the page's first byte came, and until its first view, which asks for a name, was there.
func firstPage(ctx context.Context, d *daemon, b *browser) (answered, usable time.Duration, err error) {
	url, err := d.PageURL(ctx)
	if err != nil {
		return 0, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close() // read to its end
	answered = time.Since(d.began)
	if err == nil {
		err = b.visit(ctx, url, "Your name")
	}
	return answered, time.Since(d.began), err
}

// joins lets one new daemon after another into a room where somebody talks: from the request to join until it has
// opened a frame of the speaker.
func joins(ctx context.Context, l *lab) ([]figure, error) {
	host, err := l.daemon(ctx, "host")
	if err != nil {
		return nil, err
	}
	defer host.stop()
	room, err := host.open(ctx)
	if err != nil {
		return nil, err
	}
	link, err := host.invite(ctx, room)
	if err != nil {
		return nil, err
	}
	mic, err := newMicrophone()
	if err != nil {
		return nil, err
	}
	defer mic.close()
	if err := mic.connect(ctx, host, room); err != nil {
		return nil, err
	}
	var admitted, heard []float64
	for range joiners {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(joinPause):
		}
		a, h, err := l.joinOnce(ctx, room, link)
		if err != nil {
			return nil, err
		}
		admitted, heard = append(admitted, a.Seconds()), append(heard, h.Seconds())
	}
	return []figure{
		plain("join to live in the room, median", median(admitted), "s"),
		plain("join to first frame opened, median", median(heard), "s"),
		plain("join to first frame opened, p95", quantile(heard, 0.95), "s").gate(1.0, 0.3),
	}, nil
}

func (l *lab) joinOnce(ctx context.Context, room, link string) (admitted, heard time.Duration, err error) {
	d, err := l.daemon(ctx, "guest")
	if err != nil {
		return 0, 0, err
	}
	defer d.stop()
	begin := time.Now()
	if _, err := d.Join(ctx, link, "", true); err != nil {
		return 0, 0, err
	}
	if err := d.live(ctx, room); err != nil {
		return 0, 0, err
	}
	admitted = time.Since(begin)
	err = until(ctx, "a frame opened", func() (bool, error) {
		s, err := d.stats(ctx, room)
		for _, p := range s.Speakers {
			if p.Opened > 0 {
				return true, err
			}
		}
		return false, err
	})
	heard = time.Since(begin)
	if err != nil {
		s, _ := d.stats(ctx, room)
		text, _ := json.Marshal(s) // of numbers and strings
		return 0, 0, fmt.Errorf("%w: %s", err, text)
	}
	return admitted, heard, d.Leave(ctx, room)
}
