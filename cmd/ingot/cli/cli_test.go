package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

type usageError struct{ error }

// shell is a user at a terminal, with a configuration of their own.
type shell struct {
	t     *testing.T
	stdin string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, k := range []string{"INGOT_SERVER", "INGOT_KEY", "INGOT_PROFILE"} {
		t.Setenv(k, "")
	}
	return &shell{t: t}
}

// result is what a command did.
type result struct {
	out, errOut string
	err         error
}

// run runs ingot in this process, with a server command beside those of the API.
func (s *shell) run(args ...string) result {
	s.t.Helper()
	var out, errOut bytes.Buffer
	root := &cobra.Command{Use: "ingot", SilenceErrors: true, SilenceUsage: true}
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetIn(strings.NewReader(s.stdin))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(&cobra.Command{Use: "region", Run: func(*cobra.Command, []string) {}})
	a := &app{in: root.InOrStdin(), out: &out, errOut: &errOut, usage: func(err error) error { return usageError{err} }, now: time.Now, every: 5 * time.Millisecond}
	a.add(root)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	return result{out.String(), errOut.String(), err}
}

// ok runs a command that must succeed, and returns what it prints.
func (s *shell) ok(args ...string) string {
	s.t.Helper()
	r := s.run(args...)
	if r.err != nil {
		s.t.Fatalf("ingot %v: %v\n%s%s", args, r.err, r.out, r.errOut)
	}
	return r.out
}

// fails runs a command that must fail with an error that holds all of the texts.
func (s *shell) fails(parts []string, args ...string) error {
	s.t.Helper()
	r := s.run(args...)
	if r.err == nil {
		s.t.Errorf("ingot %v succeeds:\n%s", args, r.out)
		return nil
	}
	for _, p := range parts {
		if !strings.Contains(r.err.Error(), p) {
			s.t.Errorf("ingot %v: the error does not say %q:\n%v", args, p, r.err)
		}
	}
	return r.err
}

// login logs in to a test server.
func (s *shell) login(name, url, key string) {
	s.t.Helper()
	s.stdin = key + "\n"
	s.ok("login", name, url, "-")
	s.stdin = ""
}

// machine makes a machine and returns its system_id.
func (s *shell) machine(hostname, mac string) string {
	s.t.Helper()
	var m struct {
		SystemID string `json:"system_id"`
	}
	out := s.ok("machines", "create", "-o", "json", "architecture=amd64/generic", "mac_addresses="+mac, "hostname="+hostname, "power_type=manual", "--commission=false")
	if err := json.Unmarshal([]byte(out), &m); err != nil || m.SystemID == "" {
		s.t.Fatalf("%v in %s", err, out)
	}
	return m.SystemID
}

func contains(t *testing.T, s string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(s, p) {
			t.Errorf("%q is missing in:\n%s", p, s)
		}
	}
}

func TestProfiles(t *testing.T) {
	e := servertest.New(t)
	s := newShell(t)
	var usage usageError
	if err := s.fails([]string{"ingot login NAME URL KEY"}, "machines", "list"); !errors.As(err, &usage) {
		t.Errorf("without a server: %v is no usage error", err)
	}
	secret := strings.Split(e.Admin.Key, ":")[2]
	s.stdin = e.Admin.Key + "\n"
	contains(t, s.ok("login", "prod", e.URL+"/MAAS/api/2.0/", "-"), "as admin, administrator", "3.6.0 (test)")
	contains(t, s.ok("login", "mine", e.URL, e.User.Key), "as user, user")
	path := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "ingot", "profiles.json")
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if st, err := os.Stat(p); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", p, st.Mode(), err, want)
		}
	}
	list := s.ok("profiles")
	contains(t, list, "*  mine  "+e.URL, "   prod  "+e.URL)
	if strings.Contains(list, secret) {
		t.Error("the list shows a key")
	}
	contains(t, s.ok("users", "whoami"), "user@example.com")
	contains(t, s.ok("users", "whoami", "--profile", "prod"), "admin@example.com")
	contains(t, s.ok("profiles", "use", "prod"), e.URL)
	contains(t, s.ok("users", "whoami"), "admin@example.com")
	t.Setenv("INGOT_PROFILE", "mine")
	contains(t, s.ok("users", "whoami"), "user@example.com")
	t.Setenv("INGOT_SERVER", e.URL)
	t.Setenv("INGOT_KEY", e.Admin.Key)
	contains(t, s.ok("users", "whoami"), "admin@example.com")
	contains(t, s.ok("users", "whoami", "--profile", "mine"), "user@example.com") // the environment is for its server only
	s.stdin = e.User.Key
	contains(t, s.ok("users", "whoami", "--server", e.URL, "--key", "-"), "user@example.com")
	s.fails([]string{"exclude each other"}, "users", "whoami", "--server", e.URL, "--profile", "mine")
	t.Setenv("INGOT_SERVER", "")
	t.Setenv("INGOT_KEY", "")
	t.Setenv("INGOT_PROFILE", "")

	s.fails([]string{"rejected the API key"}, "login", "bad", e.URL, "a:b:c")
	s.fails([]string{"three parts"}, "login", "bad", e.URL, "a:b")
	s.stdin = ""
	s.fails([]string{"holds none"}, "login", "bad", e.URL, "-")
	s.fails([]string{"just " + e.URL}, "login", "bad", e.URL+"/other", "a:b:c")
	s.fails([]string{"NAME URL KEY"}, "login", "bad", e.URL)
	s.fails([]string{`no profile "bad"`}, "machines", "list", "--profile", "bad")
	contains(t, s.ok("logout"), "prod")
	s.fails([]string{"no server to talk to"}, "users", "whoami")
	s.ok("logout", "mine")
	if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), secret) {
		t.Errorf("after the logout: %v\n%s", err, b)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.fails([]string{"is damaged"}, "users", "whoami")
}

// A profile's key never goes to another server.
func TestKeyStaysWithItsServer(t *testing.T) {
	e := servertest.New(t)
	s := newShell(t)
	s.login("prod", e.URL, e.Admin.Key)
	var got []string
	other := stub(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("[]"))
	})
	contains(t, s.ok("machines", "list", "--server", other), "None.")
	if len(got) != 1 || got[0] != "" {
		t.Errorf("the other server was told %q", got)
	}
}

func TestCommands(t *testing.T) {
	e := servertest.New(t)
	s := newShell(t)
	s.login("prod", e.URL, e.Admin.Key)
	contains(t, s.ok("machines", "list"), "None.")
	one := s.machine("one", "52:54:00:00:00:01")
	s.machine("two", "52:54:00:00:00:02")
	list := s.ok("machines", "list")
	contains(t, list, "SYSTEM ID", "one.maas", "two.maas", "New", one)
	if lines := strings.Count(list, "\n"); lines != 3 {
		t.Errorf("%d lines:\n%s", lines, list)
	}
	if strings.Contains(list, "POWER TYPE") || !strings.Contains(s.ok("machines", "list", "-o", "wide"), "POWER TYPE") {
		t.Error("the wide table has no more columns than the narrow one")
	}
	// Flags, flags with underscores, and NAME=VALUE are the same; lists repeat.
	for _, args := range [][]string{{"--hostname", "one"}, {"hostname=one"}, {"--mac-address=52:54:00:00:00:01"}, {"--mac_address", "52:54:00:00:00:01"}, {"id=" + one, "id=nosuch"}} {
		if out := s.ok(append([]string{"machines", "list"}, args...)...); !strings.Contains(out, "one.maas") || strings.Contains(out, "two.maas") {
			t.Errorf("machines list %v:\n%s", args, out)
		}
	}
	contains(t, s.ok("machine", "read", one), "NAME         one.maas", "POWER TYPE   manual", "INTERFACES", "52:54:00:00:00:01")
	contains(t, s.ok("machine", "update", one, "description=a=b"), "a=b")
	notes := filepath.Join(t.TempDir(), "notes")
	if err := os.WriteFile(notes, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, s.ok("machine", "update", one, "description=@"+notes), "from a file")
	contains(t, s.ok("machine", "update", one, "description@="+notes), "from a file")
	contains(t, s.ok("machine", "update", one, "--description", "@@at"), "@at")
	s.stdin = "from the input"
	contains(t, s.ok("machine", "update", one, "--description", "@-"), "from the input")
	s.fails([]string{"once only"}, "machine", "update", one, "description=@-", "hostname=@-")
	s.fails([]string{"Unknown parameter(s): oops"}, "machine", "update", one, "power_parameters_oops=x") // the family is dynamic: it arrives
	contains(t, s.ok("zones", "create", "name=east", "-o", "yaml"), "name: east\n")
	contains(t, s.ok("zone", "delete", "east"), "Done.")
	if out := s.ok("zones", "list", "-o", "json"); !json.Valid([]byte(out)) || !strings.Contains(out, `    {`) {
		t.Errorf("no JSON: %s", out)
	}
	contains(t, s.ok("maas", "version"), "3.6.0")
	contains(t, s.ok("maas", "set-config", "name=maas_name", "value=Iron"), "OK\n")
	contains(t, s.ok("maas", "get-config", "--name", "maas_name"), "Iron\n")
	contains(t, s.ok("events", "query", "id="+one, "limit=1"), "None.")
	contains(t, s.ok("subnets", "create", "--cidr", "10.1.0.0/24"), "10.1.0.0/24")
	contains(t, s.ok("vlan", "read", "5001"), "untagged") // by its id alone
	contains(t, s.ok("vlan", "read", "0", "0"), "untagged")
	contains(t, s.ok("machine", "delete", one), "Done.")
	// The same key, the same zone.
	a := s.ok("zones", "create", "name=west", "--idempotency-key", "k1", "-o", "json")
	if b := s.ok("zones", "create", "name=west", "--idempotency-key", "k1", "-o", "json"); a != b {
		t.Errorf("with the same key: %s then %s", a, b)
	}
	key := filepath.Join(t.TempDir(), "id.pub")
	if err := os.WriteFile(key, []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf0y0TMbLpkq3RC0JmAVGEv7TgRWIkFNWs5yhLDPDRD me@here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, s.ok("sshkeys", "create", "--param-key", "@"+key), "me@here") // --key is the API key
	for args, part := range map[string]string{
		"machine read":                              "SYSTEM_ID is missing",
		"machine update hostname=x":                 "SYSTEM_ID is missing",
		"machine read a b":                          "not NAME=VALUE",
		"machine frobnicate":                        "has no command",
		"machines list --nonsense":                  "unknown flag",
		"machines list -o xml":                      "table, wide, json or yaml",
		"machines create --hostname a --hostname b": "given twice",
		"machine update x system_id=b":              "stands before",
		"machine update x a=@/no/such":              "no such file",
	} {
		var u usageError
		if err := s.fails([]string{part}, strings.Fields(args)...); !errors.As(err, &u) {
			t.Errorf("%s: %v is no usage error", args, err)
		}
	}
}

// An image goes up in pieces, and its digest is computed here.
func TestUploadImage(t *testing.T) {
	e := servertest.New(t)
	s := newShell(t)
	s.login("prod", e.URL, e.Admin.Key)
	image := filepath.Join(t.TempDir(), "root.tgz")
	if err := os.WriteFile(image, bytes.Repeat([]byte("ingot"), 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"boot-resources", "create", "name=custom/web", "architecture=amd64/generic", "title=Web", "content@=" + image}
	r := s.run(args...)
	if r.err != nil {
		t.Fatal(r.err)
	}
	contains(t, r.out, "custom/web", "Web")
	contains(t, r.errOut, " 40 % of 10.5 MB", "100 % of")
	contains(t, s.ok("boot-resource", "read", "1", "-o", "json"), `"complete": true`)
	if r := s.run(append(args, "keep_old=true")...); r.err != nil || strings.Contains(r.errOut, "%") {
		t.Errorf("content that the server has: %v\n%s", r.err, r.errOut)
	}
}

func TestWait(t *testing.T) {
	e := servertest.New(t)
	s := newShell(t)
	s.login("prod", e.URL, e.Admin.Key)
	change := func(id string, from, to storage.NodeStatus, why string) (done bool) {
		err := e.DB.Write(context.Background(), func(tx *storage.Tx) error {
			n, err := tx.Node(id)
			if done = n.Status == from; err != nil || !done {
				return err
			}
			n.Status, n.ErrorDescription = to, why
			return tx.UpdateNode(&n)
		})
		if err != nil {
			t.Error(err)
		}
		return done
	}
	// set lets a machine come out of commissioning, once it is in it and the command has had time to see it.
	set := func(id string, to storage.NodeStatus, why string) {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if n := e.Admin.Get("machines/" + id + "/"); !strings.Contains(n.Text(), `"status_name": "Commissioning"`) {
				continue
			}
			time.Sleep(50 * time.Millisecond)
			change(id, storage.StatusCommissioning, to, why)
			return
		}
		t.Errorf("%s never was in commissioning", id)
	}
	one := s.machine("one", "52:54:00:00:00:01")
	go set(one, 4, "")
	r := s.run("machine", "commission", one, "--wait", "--wait-timeout", "1m")
	if r.err != nil {
		t.Fatal(r.err)
	}
	contains(t, r.errOut, one+" (one)  is Commissioning", "is Ready")
	contains(t, r.out, "STATUS       Ready")
	contains(t, s.ok("events", "query", "id="+one), "CREATED", "Commissioning")

	go set(one, 2, "the disk is on fire")
	r = s.run("machine", "commission", one, "--wait", "--wait-timeout", "1m", "-o", "json")
	if r.err == nil || r.out != "" {
		t.Fatalf("a failed commissioning: %v\n%s", r.err, r.out)
	}
	contains(t, r.err.Error(), "did not get there", `"Failed commissioning"`, "the disk is on fire", "ingot events query id="+one)

	go set(one, 0, "")
	s.fails([]string{`status "New"`}, "machine", "commission", one, "--wait", "--wait-timeout", "1m") // somebody aborted it
	s.fails([]string{"is still \"Commissioning\" after 300ms"}, "machine", "commission", one, "--wait", "--wait-timeout", "300ms")
	s.fails([]string{"404", "machines list"}, "machine", "commission", "nosuch", "--wait", "--wait-timeout", "1m")

	// Several at once, by their ids.
	two := s.machine("two", "52:54:00:00:00:02")
	change(one, storage.StatusCommissioning, storage.StatusNew, "")
	go set(one, 4, "")
	go set(two, 2, "no disk")
	r = s.run("machines", "accept", "machines="+one, "machines="+two, "--wait", "--wait-timeout", "1m")
	if r.err == nil {
		t.Fatal("one failed, and that is a success")
	}
	contains(t, r.errOut, one+" (one)  is Ready", two+" (two)  is Failed commissioning")
	contains(t, r.err.Error(), two+" (two) did not get there", "no disk")
	if strings.Contains(r.err.Error(), one) {
		t.Errorf("the machine that is ready is in the error: %v", r.err)
	}
}

// Which end of which operation is a success.
func TestGoals(t *testing.T) {
	for _, c := range []struct {
		op, machine string
		done, fails bool
	}{
		{"machine.deploy", `{"status": 9}`, false, false},
		{"machine.deploy", `{"status": 6}`, true, false},
		{"machine.deploy", `{"status": 10}`, false, true}, // aborted
		{"machine.deploy", `{"status": 11}`, false, true},
		{"machine.release", `{"status": 14}`, false, false},
		{"machine.release", `{"status": 15}`, false, true},
		{"machine.release", `{"status": 4}`, true, false},
		{"machine.rescue_mode", `{"status": 17}`, false, false},
		{"machine.rescue_mode", `{"status": 16}`, true, false},
		{"machine.exit_rescue_mode", `{"status": 6}`, true, false},
		{"machine.exit_rescue_mode", `{"status": 20}`, false, true},
		{"machine.test", `{"status": 6}`, true, false},
		{"machine.test", `{"status": 22}`, false, true},
		{"machine.power_on", `{"status": 6, "power_state": "off"}`, false, false},
		{"machine.power_on", `{"status": 6, "power_state": "on"}`, true, false},
		{"machine.power_off", `{"status": 6, "power_state": "error"}`, false, true},
		{"machine.deploy", `{}`, false, true},
	} {
		n, err := parse([]byte(c.machine))
		if err != nil {
			t.Fatal(err)
		}
		if done, err := waits[c.op].reached(n); done != c.done || (err != nil) != c.fails {
			t.Errorf("%s at %s: %v %v", c.op, c.machine, done, err)
		}
	}
	for id := range waits {
		if api.Lookup(id) == nil {
			t.Errorf("%s is no operation", id)
		}
	}
}
