package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func sshKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
}

// rescue serves on a port of its own; it returns the address and the host key's fingerprint.
func rescue(t *testing.T, authorized string) (addr, fingerprint string, stop func()) {
	t.Helper()
	s, fp, err := newSSHServer(parseKeys([]byte(authorized), t.Logf), func(string, ...any) {})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx, l) }()
	stop = func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the server does not end")
		}
		done <- context.Canceled
	}
	t.Cleanup(stop)
	return l.Addr().String(), fp, stop
}

func dialRescue(t *testing.T, addr string, key ssh.Signer, user, fingerprint string) (*ssh.Client, error) {
	t.Helper()
	return ssh.Dial("tcp", addr, &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, Timeout: 20 * time.Second,
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			if got := ssh.FingerprintSHA256(k); got != fingerprint {
				return errors.New("host key " + got)
			}
			return nil
		}})
}

func TestRescueCommands(t *testing.T) {
	key, line := sshKey(t)
	other, _ := sshKey(t)
	restricted, rline := sshKey(t)
	addr, fp, _ := rescue(t, "# the user's keys\n"+line+" user@host\n\ncommand=\"/bin/true\",no-pty "+rline+" backup\n")
	for name, k := range map[string]ssh.Signer{"an unknown key": other, "a key with options": restricted} {
		if c, err := dialRescue(t, addr, k, "root", fp); err == nil {
			c.Close()
			t.Fatalf("%s was let in", name)
		}
	}
	if c, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.Password("root")}, HostKeyCallback: ssh.InsecureIgnoreHostKey()}); err == nil {
		c.Close()
		t.Fatal("a password was taken")
	}
	c, err := dialRescue(t, addr, key, "ubuntu", fp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run := func(command, stdin string) (string, string, error) {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var out, errs bytes.Buffer
		s.Stdin, s.Stdout, s.Stderr = strings.NewReader(stdin), &out, &errs
		err = s.Run(command)
		return out.String(), errs.String(), err
	}
	if out, errs, err := run("echo out; echo err >&2; exit 3", ""); out != "out\n" || errs != "err\n" || err.(*ssh.ExitError).ExitStatus() != 3 {
		t.Fatalf("%q %q %v", out, errs, err)
	}
	big := strings.Repeat("0123456789", 200_000)
	if out, _, err := run("cat", big); err != nil || out != big {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	if _, _, err := run("kill -9 $$", ""); err == nil || err.(*ssh.ExitError).Signal() != "KILL" {
		t.Fatalf("%v", err)
	}
	if out, _, err := run("sleep 100 & echo left", ""); err != nil || out != "left\n" { // what stays behind does not hold the session
		t.Fatalf("%q %v", out, err)
	}
	if _, err := c.Dial("tcp", "127.0.0.1:1"); err == nil {
		t.Fatal("forwarding is possible")
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestSubsystem("sftp"); err == nil {
		t.Fatal("a subsystem that is not there was started")
	}
	if err := s.Setenv("LD_PRELOAD", "/tmp/x.so"); err == nil {
		t.Fatal("LD_PRELOAD was taken")
	}
	if err := s.Setenv("LC_ALL", "C"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	var wg sync.WaitGroup // several at a time on one connection
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if s, err := c.NewSession(); err == nil {
				defer s.Close()
				if out, err := s.Output("echo $HOME"); err != nil || string(out) != "/root\n" {
					t.Errorf("%q %v", out, err)
				}
			} else {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
}

func TestRescueTerminal(t *testing.T) {
	if _, err := os.Stat("/dev/ptmx"); err != nil {
		t.Skip("no pseudo terminals here")
	}
	key, line := sshKey(t)
	addr, fp, stop := rescue(t, line)
	c, err := dialRescue(t, addr, key, "root", fp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm-256color", 40, 120, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 1)
	go func() { b, _ := io.ReadAll(out); seen <- string(b) }()
	if err := s.WindowChange(50, 132); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(in, "tty; echo size $(stty size) term $TERM; exit 4\n")
	err = s.Wait()
	text := <-seen
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 4 || !strings.Contains(text, "/dev/pts/") || !strings.Contains(text, "size 50 132 term xterm-256color") {
		t.Fatalf("%v: %q", err, text)
	}
	// a client that goes away takes its shell with it, and the server ends with one open
	s, err = c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("vt100", 24, 80, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("sleep 1000"); err != nil {
		t.Fatal(err)
	}
	stop()
}

func TestRescueWithoutKeys(t *testing.T) {
	if _, _, err := newSSHServer(parseKeys([]byte("nonsense\n"), t.Logf), t.Logf); err == nil || !strings.Contains(err.Error(), "no ssh keys") {
		t.Fatalf("got %v", err)
	}
}

func FuzzRescuePackets(f *testing.F) {
	f.Add("pty-req", ssh.Marshal(struct {
		Term       string
		C, R, W, H uint32
		Modes      string
	}{"xterm", 1 << 31, 1 << 31, 0, 0, "\x00"}))
	f.Add("window-change", []byte{1, 2, 3})
	f.Add("env", ssh.Marshal(struct{ Name, Value string }{"LC_ALL", "C"}))
	f.Add("signal", ssh.Marshal(struct{ Name string }{"KILL"}))
	f.Fuzz(func(t *testing.T, typ string, payload []byte) {
		if typ == "exec" || typ == "shell" { // it would be run
			return
		}
		reqs := make(chan *ssh.Request, 1)
		reqs <- &ssh.Request{Type: typ, Payload: payload}
		close(reqs)
		(&sshSession{server: &sshServer{logf: t.Logf, shell: []string{"/bin/false"}}, ch: nullChannel{}}).run(reqs)
	})
}

type nullChannel struct{ ssh.Channel }

func (nullChannel) Close() error { return nil }
