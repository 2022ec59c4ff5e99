package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type running struct {
	cmd  *exec.Cmd
	http *http.Client
	url  string
	key  []string // consumer, token, secret
	out  *bytes.Buffer
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startServer starts `ingot dev` without machines and returns how long it took until /healthz answered 200. db is a PostgreSQL URL, or empty
// for SQLite in the folder.
func startServer(ctx context.Context, bin, dir, db string) (*running, time.Duration, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, 0, err
	}
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, 0, err
	}
	s := &running{cmd: exec.CommandContext(ctx, bin, "dev", "--dir", dir, "--http", addr, "--machines", "0", "--log-level", "error", "--db", db), out: &bytes.Buffer{}}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, 0, err
	}
	for {
		res, err := http.Get("http://" + addr + "/healthz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Since(begin) > time.Minute {
			s.stop()
			return nil, 0, fmt.Errorf("not ready within a minute:\n%s", s.out)
		}
		time.Sleep(2 * time.Millisecond)
	}
	took := time.Since(begin)
	key, err := os.ReadFile(filepath.Join(dir, "admin.apikey"))
	if err != nil {
		return nil, 0, err
	}
	if s.key = strings.Split(strings.TrimSpace(string(key)), ":"); len(s.key) != 3 {
		return nil, 0, errors.New("admin.apikey holds no key")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	s.url, s.http = "http://"+addr+"/MAAS/api/2.0/", &http.Client{Transport: transport}
	return s, took, nil
}

func (s *running) stop() error {
	if s.cmd.ProcessState != nil {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, s.out)
	}
	return nil
}

// memory is a figure of /proc/PID/status: VmRSS is the resident memory of the server, VmHWM the most since forget.
func (s *running) memory(name string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb * 1024, err
		}
	}
	return 0, errors.New("the kernel does not tell " + name)
}

// cpu is the processor time that the server has used: unlike the clock, it does not tell of what else the machine does.
func (s *running) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("the kernel tells no processor time")
	}
	ticks := int64(0)
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// forget has the kernel begin anew to look for the most memory.
func (s *running) forget() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0)
}

// call sends a request as the administrator. The answer must be a 200; whoever called closes its body.
func (s *running) call(ctx context.Context, method, path string, form url.Values) (io.ReadCloser, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return nil, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Authorization", fmt.Sprintf(`OAuth oauth_version="1.0", oauth_signature_method="PLAINTEXT", oauth_consumer_key="%s", oauth_token="%s", oauth_signature="%%26%s", oauth_nonce="%s", oauth_timestamp="%d"`,
		s.key[0], s.key[1], s.key[2], rand.Text(), time.Now().Unix()))
	res, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 500))
		res.Body.Close()
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text)
	}
	return res.Body, nil
}

// fetch is call for those who want the answer as JSON, or with into nil thrown away. It answers how long all of it took, and its size.
func (s *running) fetch(ctx context.Context, method, path string, form url.Values, into any) (time.Duration, int64, error) {
	begin := time.Now()
	body, err := s.call(ctx, method, path, form)
	if err != nil {
		return 0, 0, err
	}
	defer body.Close()
	if into == nil {
		size, err := io.Copy(io.Discard, body)
		return time.Since(begin), size, err
	}
	text, err := io.ReadAll(body)
	took := time.Since(begin)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	return took, int64(len(text)), err
}
