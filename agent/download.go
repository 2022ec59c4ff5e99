package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ingot-metal/ingot/api"
)

// imageURL is where the rack that this machine booted from keeps an image.
func imageURL(configURL string, img api.ImageSource) (string, error) {
	u, err := checkURL(configURL)
	if err != nil {
		return "", err
	}
	p := strings.TrimPrefix(img.Path, "/")
	p = strings.TrimPrefix(p, "images/")
	if p == "" || path.Clean("/"+p) != "/"+p {
		return "", fmt.Errorf("image path %q is not clean", img.Path)
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/images/" + p}).String(), nil
}

// download reads a URL as one stream, goes on where it was when a connection breaks, and checks size and SHA-256 at the end.
type download struct {
	ctx    context.Context
	client *http.Client
	url    string
	size   int64
	sum    string
	logf   func(string, ...any)

	body  io.ReadCloser
	at    atomic.Int64 // bytes received; read by others for progress
	hash  hash.Hash
	fails int
	unit  time.Duration
}

func newDownload(ctx context.Context, c *Client, u string, img api.ImageSource, logf func(string, ...any)) (*download, error) {
	if b, err := hex.DecodeString(img.SHA256); err != nil || len(b) != sha256.Size {
		return nil, fmt.Errorf("image %s: the plan gives no SHA-256", img.Path)
	}
	unit := c.Unit
	if unit == 0 {
		unit = time.Second
	}
	// no overall timeout: images are large. Broken connections are found by TCP keep-alive.
	return &download{ctx: ctx, client: &http.Client{Transport: c.HTTP.Transport}, url: u, size: img.Size, sum: strings.ToLower(img.SHA256), logf: logf, hash: sha256.New(), unit: unit}, nil
}

var errMismatch = errors.New("content does not match its SHA-256")

func (d *download) open() error {
	req, err := http.NewRequestWithContext(d.ctx, "GET", d.url, nil)
	if err != nil {
		return err
	}
	at := d.at.Load()
	if at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
	}
	res, err := d.client.Do(req)
	if err != nil {
		return err
	}
	want := http.StatusOK
	if at > 0 {
		want = http.StatusPartialContent
	}
	if res.StatusCode != want {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		res.Body.Close()
		return &HTTPError{Method: "GET", URL: d.url, Status: res.StatusCode, Body: string(b)}
	}
	d.body = res.Body
	return nil
}

// Read implements io.Reader. io.EOF is only returned for content that was verified.
func (d *download) Read(p []byte) (int, error) {
	for {
		at := d.at.Load()
		if d.size > 0 && at == d.size {
			return 0, d.verify()
		}
		var err error
		if d.body == nil {
			err = d.open()
		}
		if err == nil {
			if d.size > 0 && int64(len(p)) > d.size-at {
				p = p[:d.size-at]
			}
			var n int
			n, err = d.body.Read(p)
			if n > 0 {
				d.hash.Write(p[:n])
				d.at.Add(int64(n))
				d.fails = 0
				return n, nil
			}
			if err == nil {
				continue
			}
			d.body.Close()
			d.body = nil
			if err == io.EOF {
				if d.size <= 0 {
					return 0, d.verify()
				}
				err = io.ErrUnexpectedEOF
			}
		}
		var he *HTTPError
		if errors.As(err, &he) && he.Status < 500 && he.Status != 429 && he.Status != 408 {
			return 0, err
		}
		if d.ctx.Err() != nil {
			return 0, d.ctx.Err()
		}
		if d.fails >= len(retryWaits) {
			return 0, fmt.Errorf("download stopped at byte %d: %w", at, err)
		}
		d.logf("download: at byte %d: %v; trying again", at, err)
		select {
		case <-time.After(retryWaits[d.fails] * d.unit):
		case <-d.ctx.Done():
		}
		d.fails++
	}
}

func (d *download) verify() error {
	d.Close()
	if got := hex.EncodeToString(d.hash.Sum(nil)); got != d.sum {
		return fmt.Errorf("%s: %w: got %s, want %s", d.url, errMismatch, got, d.sum)
	}
	return io.EOF
}

// Close ends the connection.
func (d *download) Close() {
	if d.body != nil {
		d.body.Close()
		d.body = nil
	}
}

// readAhead reads r in a goroutine of its own, a few MiB ahead: receiving and hashing, unpacking, and writing then share the
// processors. Close it before r.
type readAhead struct {
	blocks chan []byte
	free   chan []byte
	stop   chan struct{}
	done   chan struct{}
	cur    []byte // unread rest of block
	block  []byte
	err    error // after blocks is closed
}

func newReadAhead(r io.Reader) *readAhead {
	a := &readAhead{blocks: make(chan []byte, 4), free: make(chan []byte, 6), stop: make(chan struct{}), done: make(chan struct{})}
	for range cap(a.free) {
		a.free <- make([]byte, 512<<10)
	}
	go func() {
		defer close(a.done)
		defer close(a.blocks)
		for {
			var b []byte
			select {
			case b = <-a.free:
			case <-a.stop:
				a.err = io.ErrClosedPipe
				return
			}
			n, err := io.ReadFull(r, b[:cap(b)])
			if n > 0 {
				select {
				case a.blocks <- b[:n]:
				case <-a.stop:
					a.err = io.ErrClosedPipe
					return
				}
			}
			if err != nil {
				if err == io.ErrUnexpectedEOF { // ReadFull's word for a short last block
					err = io.EOF
				}
				a.err = err
				return
			}
		}
	}()
	return a
}

// Read implements io.Reader.
func (a *readAhead) Read(p []byte) (int, error) {
	for len(a.cur) == 0 {
		if a.block != nil {
			a.free <- a.block // never full: it came from there
			a.block = nil
		}
		b, ok := <-a.blocks
		if !ok {
			return 0, a.err
		}
		a.cur, a.block = b, b
	}
	n := copy(p, a.cur)
	a.cur = a.cur[n:]
	return n, nil
}

// WriteTo implements io.WriterTo: the blocks are handed over as they are.
func (a *readAhead) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if len(a.cur) == 0 {
			if a.block != nil {
				a.free <- a.block
				a.block = nil
			}
			b, ok := <-a.blocks
			if !ok {
				if a.err == io.EOF {
					return total, nil
				}
				return total, a.err
			}
			a.cur, a.block = b, b
		}
		n, err := w.Write(a.cur)
		total += int64(n)
		if a.cur = a.cur[n:]; err != nil {
			return total, err
		}
	}
}

// Close ends the goroutine. The reader beneath must not be used by others before.
func (a *readAhead) Close() {
	close(a.stop)
	<-a.done
}
