// Command images measures how images travel, on the real binary: an upload to the region, fifty machines that fetch one image through a
// rack that does not have it yet, and how fast the rack serves what it has, beside nginx where that is installed. What it looks at is that
// memory does not grow with the image or the machines, and that the region sends the image once.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

func main() {
	bin := flag.String("bin", "bin/ingot", "the program")
	size := flag.Int64("size", 1<<30, "bytes of the image")
	clients := flag.Int("clients", 50, "machines that fetch it at once")
	nginx := flag.String("nginx", "nginx", "nginx to compare with; not found: none")
	flag.Parse()
	if err := run(*bin, *size, *clients, *nginx); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// program is one process under measurement.
type program struct {
	name string
	cmd  *exec.Cmd
	log  string
}

func start(dir, name string, args ...string) (*program, error) {
	p := &program{name: filepath.Base(name) + " " + args[0], log: filepath.Join(dir, filepath.Base(name)+"-"+filepath.Base(args[0])+".log"), cmd: exec.Command(name, args...)}
	f, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p, p.cmd.Start()
}

func (p *program) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// peak is the most memory that the process has had resident since forget.
func (p *program) peak() string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return err.Error()
			}
			return fmt.Sprintf("%d MiB", kb>>10)
		}
	}
	return "unknown"
}

func (p *program) forget() {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0)
}

// cpu is the processor time that processes have used.
func cpu(pids ...int) time.Duration {
	var sum int64
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		for _, i := range []int{11, 12} {
			n, _ := strconv.ParseInt(f[i], 10, 64) // the kernel writes numbers there
			sum += n
		}
	}
	return time.Duration(sum) * 10 * time.Millisecond
}

// counter is a port that passes connections on and counts what comes back.
type counter struct {
	ln    net.Listener
	to    string
	bytes atomic.Int64
}

func newCounter(to string) (*counter, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &counter{ln: ln, to: to}
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go c.pass(in)
		}
	}()
	return c, nil
}

func (c *counter) pass(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(out, in)
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, io.TeeReader(out, countWriter{&c.bytes}))
}

type countWriter struct{ n *atomic.Int64 }

func (w countWriter) Write(p []byte) (int, error) {
	w.n.Add(int64(len(p)))
	return len(p), nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func wait(what string, ok func() bool) error {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return nil
		}
	}
	return fmt.Errorf("waited two minutes in vain until %s", what)
}

func run(bin string, size int64, clients int, nginx string) error {
	dir, err := os.MkdirTemp("", "ingot-bench-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var addrs [3]string
	for i := range addrs {
		if addrs[i], err = freeAddr(); err != nil {
			return err
		}
	}
	web, link, boot := addrs[0], addrs[1], addrs[2]
	region, err := start(dir, bin, "region", "--dir", dir+"/region", "--http", web, "--rack-link", link)
	if err != nil {
		return err
	}
	defer region.stop()
	if err := wait("the region is ready", func() bool {
		res, err := http.Get("http://" + web + "/healthz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}); err != nil {
		return err
	}
	out, err := os.ReadFile(region.log)
	if err != nil {
		return err
	}
	_, rest, ok := strings.Cut(string(out), "--fingerprint ")
	if !ok {
		return errors.New("the region prints no fingerprint")
	}
	between, err := newCounter(link)
	if err != nil {
		return err
	}
	defer between.ln.Close()
	rack, err := start(dir, bin, "rack", "--dir", dir+"/rack", "--region", "https://"+between.ln.Addr().String(), "--region-http", "http://"+web,
		"--fingerprint", strings.Fields(rest)[0], "--secret-file", dir+"/region/pki/rack-secret", "--hostname", "rack-1", "--tftp", "", "--boot-http", boot)
	if err != nil {
		return err
	}
	defer rack.stop()
	key, err := os.ReadFile(dir + "/region/admin.apikey")
	if err != nil {
		return err
	}
	c, err := client.New(client.Config{URL: "http://" + web, APIKey: strings.TrimSpace(string(key))})
	if err != nil {
		return err
	}

	idle := region.peak()
	sha, took, err := upload(c, size)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	fmt.Printf("upload of %d MiB: %.1f s, %.0f MiB/s; region's memory %s idle, %s at most\n", size>>20, took.Seconds(), float64(size>>20)/took.Seconds(), idle, region.peak())

	url := "http://" + boot + "/images/" + sha + "/custom/amd64/generic/bench/uploaded/root-dd.raw"
	if err := wait("the rack knows the image", func() bool { return knows(dir, sha) }); err != nil {
		return err
	}
	before := between.bytes.Load()
	region.forget()
	rack.forget()
	idleRegion, idleRack := region.peak(), rack.peak()
	took, err = fetch(url, size, clients)
	if err != nil {
		return fmt.Errorf("cold fetch: %w", err)
	}
	fmt.Printf("%d clients fetch it at once, the rack has it not: %.1f s; the region sent it %.3f times\n", clients, took.Seconds(), float64(between.bytes.Load()-before)/float64(size))
	fmt.Printf("  memory at most: region %s (%s before), rack %s (%s before)\n", region.peak(), idleRegion, rack.peak(), idleRack)

	blob := filepath.Join(dir, "rack", "cache", sha)
	if _, err := os.Stat(blob); err != nil {
		return fmt.Errorf("the rack's cache: %w", err)
	}
	stop, other, pids, err := startNginx(dir, nginx, blob)
	if err != nil {
		fmt.Println("nginx is not compared with:", err)
	} else {
		defer stop()
	}
	for _, n := range []int{1, 8, clients} {
		for range 2 {
			if err := race("rack", url, size, n, rack.cmd.Process.Pid); err != nil {
				return err
			}
			if other != "" {
				if err := race("nginx", other, size, n, pids()...); err != nil {
					return err
				}
			}
		}
	}
	fmt.Printf("memory at the end: region %s, rack %s at most\n", region.peak(), rack.peak())
	return nil
}

// knows says whether the rack has the image in its snapshot, which it keeps on its disk.
func knows(dir, sha string) bool {
	raw, err := os.ReadFile(filepath.Join(dir, "rack", "snapshot.json"))
	return err == nil && bytes.Contains(raw, []byte(sha))
}

// race measures what a server that has the file sends to some clients at once, and what it needs for that.
func race(name, url string, size int64, clients int, pids ...int) error {
	used := cpu(pids...)
	took, err := fetch(url, size, clients)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	used = cpu(pids...) - used
	gib := float64(size) * float64(clients) / (1 << 30)
	fmt.Printf("%-5s to %2d clients: %5.2f GiB/s, %4.0f ms of processor time per GiB\n", name, clients, gib/took.Seconds(), float64(used.Milliseconds())/gib)
	return nil
}

// fetch has clients read a file whole at once.
func fetch(url string, size int64, clients int) (time.Duration, error) {
	t := &http.Transport{MaxIdleConnsPerHost: clients, DisableCompression: true, ReadBufferSize: 1 << 20}
	defer t.CloseIdleConnections()
	hc := &http.Client{Transport: t}
	var wg sync.WaitGroup
	errs := make([]error, clients)
	begin := time.Now()
	for i := range clients {
		wg.Go(func() {
			res, err := hc.Get(url)
			if err != nil {
				errs[i] = err
				return
			}
			defer res.Body.Close()
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, make([]byte, 1<<20))
			if err != nil || res.StatusCode != http.StatusOK || n != size {
				errs[i] = fmt.Errorf("%s: %d bytes, %w", res.Status, n, err)
			}
		})
	}
	wg.Wait()
	return time.Since(begin), errors.Join(errs...)
}

// upload makes an image of random bytes and sends it in pieces of four MiB, as clients do.
func upload(c *client.Client, size int64) (sha string, took time.Duration, err error) {
	source := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), size) }
	h := sha256.New()
	if _, err := io.Copy(h, source()); err != nil {
		return "", 0, err
	}
	sha = hex.EncodeToString(h.Sum(nil))
	ctx, kind := context.Background(), "ddraw"
	begin := time.Now()
	r, err := c.BootResourcesCreate(ctx, api.BootResourcesCreateParams{Name: "custom/bench", Architecture: "amd64/generic", SHA256: sha, Size: size, Filetype: &kind})
	if err != nil {
		return "", 0, err
	}
	var file int64
	for _, set := range r.Sets {
		for _, f := range set.Files {
			if f.UploadURI != nil {
				parts := strings.Split(strings.Trim(*f.UploadURI, "/"), "/")
				if file, err = strconv.ParseInt(parts[len(parts)-1], 10, 64); err != nil {
					return "", 0, err
				}
			}
		}
	}
	rd, buf := source(), make([]byte, 4<<20)
	for {
		n, err := io.ReadFull(rd, buf)
		if n == 0 {
			return sha, time.Since(begin), nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return "", 0, err
		}
		p := api.BootResourceFileUploadUploadParams{ResourceID: r.ID, ID: file, Input: api.Input{Raw: bytes.NewReader(buf[:n])}}
		if _, err := c.BootResourceFileUploadUpload(ctx, p); err != nil {
			return "", 0, err
		}
	}
}

// startNginx serves a file with nginx in a configuration of its own on the loopback interface.
func startNginx(dir, bin, file string) (stop func(), url string, pids func() []int, err error) {
	path, err := exec.LookPath(bin)
	if err != nil {
		return nil, "", nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, "", nil, err
	}
	home := filepath.Join(dir, "nginx")
	if err := os.MkdirAll(home+"/www", 0o755); err != nil {
		return nil, "", nil, err
	}
	if err := os.Link(file, home+"/www/image"); err != nil {
		return nil, "", nil, err
	}
	conf := fmt.Sprintf(`daemon off; worker_processes auto; pid %[1]s/pid; error_log %[1]s/error.log; %[3]s
events { worker_connections 512; }
http { access_log off; sendfile on; tcp_nopush on; sendfile_max_chunk 2m; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s;
uwsgi_temp_path %[1]s; scgi_temp_path %[1]s; server { listen %[2]s; root %[1]s/www; } }
`, home, addr, map[bool]string{true: "user root;"}[os.Getuid() == 0])
	if err := os.WriteFile(home+"/nginx.conf", []byte(conf), 0o644); err != nil {
		return nil, "", nil, err
	}
	p, err := start(dir, path, "-e", home+"/error.log", "-p", home, "-c", home+"/nginx.conf")
	if err != nil {
		return nil, "", nil, err
	}
	url = "http://" + addr + "/image"
	if err := wait("nginx is ready", func() bool {
		res, err := http.Head(url)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}); err != nil {
		p.stop()
		return nil, "", nil, err
	}
	return p.stop, url, func() []int {
		out := []int{p.cmd.Process.Pid}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.cmd.Process.Pid, p.cmd.Process.Pid))
		if err != nil {
			return out
		}
		for _, f := range strings.Fields(string(raw)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
		return out
	}, nil
}
