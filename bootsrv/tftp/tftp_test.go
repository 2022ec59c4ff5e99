package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	pin "github.com/pin/tftp/v3"

	"github.com/ingot-metal/ingot/bootsrv/files"
)

// opener serves what is in the map.
type opener struct {
	mu     sync.Mutex
	files  map[string][]byte
	served int
	rack   netip.Addr
}

func (o *opener) Open(_ context.Context, r files.Request) (*files.File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rack = r.Rack
	if r.Path == "broken" {
		return nil, errors.New("secret detail of the disk")
	}
	b, ok := o.files[r.Path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &files.File{ReadSeeker: bytes.NewReader(b), Closer: io.NopCloser(nil), Size: int64(len(b))}, nil
}

func (o *opener) Served(*files.File) { o.mu.Lock(); o.served++; o.mu.Unlock() }

func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func start(t testing.TB, o Opener, c Config) *Server {
	t.Helper()
	c.Addr, c.Files = "127.0.0.1:0", o
	s, err := Bind(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	return s
}

// TestForeignClient: a client that we did not write, with its options.
func TestForeignClient(t *testing.T) {
	o := &opener{files: map[string][]byte{"empty.lst": {}, "a": random(100), "block": random(512 * 3), "big": random(3<<20 + 17), "text": []byte("a\nb\n")}}
	s := start(t, o, Config{})
	for name, want := range o.files {
		for _, block := range []int{0, 512, 1024, 1468, 8192} {
			c, err := pin.NewClient(s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if block > 0 {
				c.SetBlockSize(block)
			}
			c.RequestTSize(true)
			wt, err := c.Receive(name, "octet")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if n, ok := wt.(pin.IncomingTransfer).Size(); ok && n != int64(len(want)) {
				t.Errorf("%s: tsize %d, want %d", name, n, len(want))
			}
			var got bytes.Buffer
			if _, err := wt.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s, block size %d: %d bytes, want %d: %v", name, block, got.Len(), len(want), err)
			}
		}
	}
	c, _ := pin.NewClient(s.Addr().String())
	if wt, err := c.Receive("text", "netascii"); err != nil {
		t.Error(err)
	} else {
		var got bytes.Buffer
		if _, err := wt.WriteTo(&got); err != nil || got.String() != "a\nb\n" {
			t.Errorf("netascii: %q %v", got.String(), err)
		}
	}
	if _, err := c.Receive("missing", "octet"); err == nil || !strings.Contains(err.Error(), "code: 1") {
		t.Errorf("missing: %v", err)
	}
	if _, err := c.Receive("broken", "octet"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("broken: %v", err)
	}
	if rf, err := c.Send("a", "octet"); err == nil {
		if _, err = rf.ReadFrom(strings.NewReader("x")); err == nil {
			t.Error("a write was accepted")
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rack != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("rack address %s", o.rack)
	}
}

// client is a windowed client (RFC 7440) that loses packets both ways.
type client struct {
	t     testing.TB
	c     *net.UDPConn
	srv   *net.UDPAddr
	rnd   *rand.Rand
	loss  float64
	acks  int
	oack  map[string]string
	order []string
}

func rrq(name string, opts ...string) []byte {
	b := append([]byte{0, opRRQ}, name...)
	b = append(b, "\x00octet\x00"...)
	for _, o := range opts {
		b = append(append(b, o...), 0)
	}
	return b
}

func dial(t testing.TB, s *Server) *client {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{t: t, c: c, srv: net.UDPAddrFromAddrPort(s.Addr()), rnd: rand.New(rand.NewPCG(7, 7)), oack: map[string]string{}}
}

func (c *client) get(name string, block, window int, opts ...string) ([]byte, error) {
	ask := rrq(name, opts...)
	c.c.WriteToUDP(ask, c.srv)
	var out []byte
	var peer *net.UDPAddr
	next, inWindow := uint16(1), 0
	buf := make([]byte, 70000)
	ack := func(n uint16) {
		c.acks++
		if c.rnd.Float64() < c.loss {
			return
		}
		c.c.WriteToUDP([]byte{0, opACK, byte(n >> 8), byte(n)}, peer)
	}
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		c.c.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
		n, from, err := c.c.ReadFromUDP(buf)
		if err != nil {
			if peer == nil {
				c.c.WriteToUDP(ask, c.srv)
			} else {
				ack(next - 1)
				inWindow = 0
			}
			continue
		}
		if c.rnd.Float64() < c.loss {
			continue
		}
		if peer != nil && from.Port != peer.Port {
			continue // of a transfer that our repeated request began
		}
		switch binary.BigEndian.Uint16(buf) {
		case opERROR:
			return nil, fmt.Errorf("error %d", binary.BigEndian.Uint16(buf[2:]))
		case opOACK:
			peer = from
			p := strings.Split(string(buf[2:n-1]), "\x00")
			c.order = nil
			for i := 0; i+1 < len(p); i += 2 {
				c.oack[p[i]] = p[i+1]
				c.order = append(c.order, p[i])
			}
			ack(0)
		case opDATA:
			peer = from
			if b := binary.BigEndian.Uint16(buf[2:]); b != next {
				if int16(b-next) > 0 { // a gap: ask again
					ack(next - 1)
					inWindow = 0
				}
				continue
			}
			out = append(out, buf[4:n]...)
			next++
			inWindow++
			last := n-4 < block
			if inWindow == window || last {
				ack(next - 1)
				inWindow = 0
			}
			if last {
				return out, nil
			}
		}
	}
	return nil, errors.New("timeout")
}

func TestWindow(t *testing.T) {
	o := &opener{files: map[string][]byte{"f": random(1 << 20)}}
	s := start(t, o, Config{})
	for _, w := range []string{"1", "4", "16", "64"} {
		c := dial(t, s)
		var n int
		fmt.Sscan(w, &n)
		got, err := c.get("f", 1024, n, "windowsize", w, "tsize", "0", "blksize", "1024", "unknown", "7")
		if err != nil || !bytes.Equal(got, o.files["f"]) {
			t.Fatalf("window %s: %d bytes, %v", w, len(got), err)
		}
		if c.oack["windowsize"] != w || c.oack["tsize"] != "1048576" || c.oack["blksize"] != "1024" || c.oack["unknown"] != "" {
			t.Errorf("window %s: oack %v", w, c.oack)
		}
		if strings.Join(c.order, " ") != "windowsize tsize blksize" {
			t.Errorf("options in the order %v", c.order)
		}
		if c.acks > (1<<20)/1024/n+10 {
			t.Errorf("window %s: %d acknowledgements", w, c.acks)
		}
	}
	// Out of bounds is not acknowledged; too much is cut down.
	c := dial(t, s)
	if _, err := c.get("f", 512, 64, "blksize", "3", "windowsize", "60000", "timeout", "0", "tsize", "x"); err != nil || len(c.oack) != 1 || c.oack["windowsize"] != "64" {
		t.Errorf("oack %v, %v", c.oack, err)
	}
	c = dial(t, s)
	if _, err := c.get("f", DefaultMaxBlock, 1, "blksize", "65000"); err != nil || c.oack["blksize"] != fmt.Sprint(DefaultMaxBlock) {
		t.Errorf("oack %v, %v", c.oack, err)
	}
}

// TestWrap: more than 65535 blocks.
func TestWrap(t *testing.T) {
	o := &opener{files: map[string][]byte{"f": random(512*66000 + 3)}}
	s := start(t, o, Config{})
	got, err := dial(t, s).get("f", 512, 32, "windowsize", "32")
	if err != nil || !bytes.Equal(got, o.files["f"]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestLoss(t *testing.T) {
	o := &opener{files: map[string][]byte{"f": random(300 << 10)}}
	s := start(t, o, Config{Timeout: 50 * time.Millisecond, Retries: 20})
	for _, w := range []int{1, 8} {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			t.Parallel()
			c := dial(t, s)
			c.loss = 0.05
			got, err := c.get("f", 1024, w, "blksize", "1024", "windowsize", fmt.Sprint(w))
			if err != nil || !bytes.Equal(got, o.files["f"]) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// TestProbe: UEFI firmware asks for the size, aborts with an error packet, and asks again from the same port.
func TestProbe(t *testing.T) {
	o := &opener{files: map[string][]byte{"f": random(5000)}}
	s := start(t, o, Config{})
	c := dial(t, s)
	for range 3 {
		c.c.WriteToUDP(rrq("f", "tsize", "0", "blksize", "1468", "windowsize", "4"), c.srv)
		buf := make([]byte, 2000)
		c.c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, from, err := c.c.ReadFromUDP(buf)
		if err != nil || buf[1] != opOACK {
			t.Fatalf("%x %v", buf[:n], err)
		}
		c.c.WriteToUDP([]byte{0, opERROR, 0, 8, 'n', 'o', 0}, from)
	}
	if got, err := c.get("f", 1468, 4, "blksize", "1468", "windowsize", "4"); err != nil || !bytes.Equal(got, o.files["f"]) {
		t.Fatalf("%d %v", len(got), err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.served != 1 {
		t.Errorf("%d files counted as served, want 1: probes are none", o.served)
	}
}

// TestSilentClient: a client that goes away does not keep a transfer.
func TestSilentClient(t *testing.T) {
	o := &opener{files: map[string][]byte{"f": random(5000)}}
	s := start(t, o, Config{Timeout: 10 * time.Millisecond, Retries: 2})
	c := dial(t, s)
	c.c.WriteToUDP(rrq("f"), c.srv)
	for range 200 {
		time.Sleep(10 * time.Millisecond)
		s.mu.Lock()
		n := len(s.active)
		s.mu.Unlock()
		if n == 0 {
			return
		}
	}
	t.Error("the transfer is still there")
}

func TestGarbage(t *testing.T) {
	o := &opener{files: map[string][]byte{"f": random(100)}}
	s := start(t, o, Config{})
	c := dial(t, s)
	for _, b := range [][]byte{{}, {0}, {0, 1}, {0, 1, 0}, {0, 1, 0, 0}, {0, 9, 1, 1}, {0, 3, 0, 1, 7}, []byte("\x00\x01f\x00octet"), []byte("\x00\x01f\x00mail\x00"),
		[]byte("\x00\x01" + strings.Repeat("x", 1500) + "\x00octet\x00"), bytes.Repeat([]byte{0, 1}, 700), append([]byte{0, 1}, bytes.Repeat([]byte("a\x00"), 600)...)} {
		c.c.WriteToUDP(b, c.srv)
	}
	c = dial(t, s)
	if got, err := c.get("f", 512, 1); err != nil || len(got) != 100 {
		t.Fatalf("%d %v", len(got), err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("f\x00octet\x00blksize\x001024\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		if r.path == "" || len(r.opts) > 16 {
			t.Fatalf("%+v", r)
		}
		for _, o := range []string{"blksize", "windowsize", "timeout"} {
			if n, ok := r.intOpt(o, 1, 65464); ok && (n < 1 || n > 65464) {
				t.Fatal(n)
			}
		}
	})
}
