package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
)

// Every operation has its command, under the names that MAAS's command line makes of the server's describe document.
func TestEveryOperation(t *testing.T) {
	e := servertest.New(t)
	byPath := map[string]*api.Operation{}
	for _, n := range nouns(nil) {
		for _, v := range n.verbs {
			for _, name := range append([]string{v.name}, v.aliases...) {
				p := n.name + " " + name
				if byPath[p] != nil {
					t.Errorf("%s is %s and %s", p, byPath[p].ID, v.op.ID)
				}
				byPath[p] = v.op
			}
		}
	}
	commands := map[string]bool{}
	for _, op := range byPath {
		commands[op.ID] = true
	}
	for _, h := range api.Handlers {
		for _, op := range h.Ops {
			if !commands[op.ID] {
				t.Errorf("%s has no command", op.ID)
			}
		}
	}
	var doc struct {
		Resources []struct {
			Name string
			Auth *struct {
				Path    string
				Actions []struct {
					Name, Method string
					Op           *string
				}
			}
		}
	}
	e.Anon.Get("describe/").Into(t, &doc)
	word := regexp.MustCompile(`[A-Z]+[a-z0-9]*`)
	count := 0
	for _, r := range doc.Resources {
		if r.Auth == nil {
			continue
		}
		var words []string
		for _, w := range word.FindAllString(r.Name, -1) {
			if w != "Handler" {
				words = append(words, strings.ToLower(w))
			}
		}
		for _, a := range r.Auth.Actions {
			p := strings.Join(words, "-") + " " + strings.ReplaceAll(a.Name, "_", "-")
			op := byPath[p]
			if op == nil || op.Method != a.Method || a.Op == nil && op.Op != "" || a.Op != nil && op.Op != *a.Op || !strings.HasSuffix(r.Auth.Path, op.Path) {
				t.Errorf("`maas PROFILE %s` is %+v here", p, op)
			}
			count++
		}
	}
	if count < 200 {
		t.Errorf("describe has %d actions only", count)
	}
	for path, id := range map[string]string{"machines list": "machines.list", "machine deploy": "machine.deploy", "dnsresource-records create": "dns_resource_records.create",
		"sshkeys import": "ssh_keys.import", "node-script download": "node_script.download", "maas version": "version.read", "machine timeline": "ingot_machine_timeline.read",
		"account create-token": "account.create_token"} {
		if op := byPath[path]; op == nil || op.ID != id {
			t.Errorf("%s is %v", path, op)
		}
	}
}

// Help tells of each parameter, and no flag hides a global one.
func TestHelp(t *testing.T) {
	s := newShell(t)
	out := s.ok("machine", "deploy", "--help")
	contains(t, out, "ingot machine deploy SYSTEM_ID", "--distro-series", "OS or os/series", "--user-data", "--wait", "--output", "--profile")
	if strings.Contains(out, "--install-kvm") {
		t.Error("a parameter that was removed is offered")
	}
	contains(t, s.ok("machine", "update", "--help"), "POWER_PARAMETERS_PARAM=VALUE")
	contains(t, s.ok("vlan", "read", "--help"), "VLAN_ID alone")
	contains(t, s.ok("dns-resource-records", "list", "--help"), "dnsresource-records") // the readable alias
	contains(t, s.ok("--help"), "Run and administer a server:", "region", "Talk to a server", "machines ")
	root := &cobra.Command{Use: "ingot"}
	Add(root, func(err error) error { return err })
	var walk func(c *cobra.Command)
	flags := 0
	walk = func(c *cobra.Command) {
		for _, name := range []string{"key", "server", "profile", "output"} {
			if f := c.Flags().Lookup(name); f != nil && c.HasParent() && c.Parent().Name() != "ingot" {
				if _, param := f.Value.(*values); param {
					t.Errorf("%s: the flag %s is a parameter", c.CommandPath(), name)
				}
			}
		}
		flags++
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if flags < 400 {
		t.Errorf("%d commands only", flags)
	}
	defer func() {
		if recover() == nil {
			t.Error("a command of the server is hidden by one of the API")
		}
	}()
	nouns(map[string]bool{"machines": true})
}

func TestCompletion(t *testing.T) {
	e := servertest.New(t)
	s := newShell(t)
	if out := s.ok("__complete", "machine", "read", ""); strings.Contains(out, "rror") {
		t.Errorf("without a profile: %s", out)
	}
	s.login("prod", e.URL, e.Admin.Key)
	one := s.machine("one", "52:54:00:00:00:01")
	s.ok("zones", "create", "name=east", "description=the new hall")
	s.ok("subnets", "create", "cidr=10.1.0.0/24")
	for line, want := range map[string]string{
		"machine read ":                               one + "\tone, New",
		"machine read " + one[:2]:                     one + "\tone, New",
		"zone read ea":                                "east\tthe new hall",
		"machines list zone=":                         "zone=east\tthe new hall",
		"machines list --zone ":                       "east\tthe new hall",
		"machines list --status dep":                  "deploying",
		"machines list status=dep":                    "status=deploying",
		"machine deploy " + one + " distro":           "distro_series=\tOS or os/series, default setting",
		"machine deploy " + one + " --wai":            "--wait\t",
		"machine commission " + one + " enable_ssh=t": "enable_ssh=true",
		"vlan read ":                                  "0\tfabric-0",
		"vlan read 0 ":                                "0\tuntagged",
		"interface read " + one + " ":                 "1\teth0, 52:54:00:00:00:01",
		"resource-pool read ":                         "0\tdefault",
		"user read ad":                                "admin",
		"machines list -o y":                          "yaml",
		"machines list --profile ":                    "prod\t" + e.URL,
		"logout ":                                     "prod\t" + e.URL,
		"completion ":                                 "zsh",
		"machine de":                                  "deploy\tDeploy a machine",
		"machines allocate subnet":                    "subnets=",
	} {
		args := append([]string{"__complete"}, strings.Split(line, " ")...)
		if out := s.ok(args...); !slices.ContainsFunc(strings.Split(out, "\n"), func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("%q: no %q in\n%s", line, want, out)
		}
	}
	// A server that is away offers nothing and says nothing.
	if out := s.ok("__complete", "machine", "read", "--server", "http://127.0.0.1:1", ""); !strings.HasPrefix(out, ":") {
		t.Errorf("with the server away: %q", out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		contains(t, s.ok("completion", shell), "__complete")
	}
}

// Bash itself completes values behind an equals sign.
func TestBash(t *testing.T) {
	const lib = "/usr/share/bash-completion/bash_completion"
	if _, err := os.Stat(lib); err != nil {
		t.Skip("the package bash-completion is missing")
	}
	s := newShell(t)
	script := s.ok("completion", "bash")
	dir := t.TempDir()
	program := dir + "/ingot"
	if err := os.WriteFile(program, []byte("#!/bin/sh\ncase $* in\n*zone=*) printf 'zone=east\\tthe new hall\\nzone=east2\\tanother\\n:4\\n';;\n*) printf 'abc\\n:4\\n';;\nesac\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/completion", []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	try := func(line string, words ...string) string {
		quoted, _ := json.Marshal(line)
		body := "source " + lib + "; source " + dir + "/completion; PATH=" + dir + ":$PATH\nCOMP_LINE=" + string(quoted) + "; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9\n" +
			"COMP_WORDS=(" + strings.Join(words, " ") + "); COMP_CWORD=$((${#COMP_WORDS[@]}-1))\ncompopt() { :; }\n" +
			"f=$(complete -p ingot | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f ingot \"${COMP_WORDS[COMP_CWORD]}\" x; printf '[%s]' \"${COMPREPLY[@]}\""
		out, err := exec.Command("bash", "--norc", "-c", body).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if got := try("ingot machines list zone=ea", "ingot", "machines", "list", "zone", "=", "ea"); !strings.Contains(got, "[east") || strings.Contains(got, "zone=") {
		t.Errorf("zone=ea completes to %s", got)
	}
	if got := try("ingot machine read a", "ingot", "machine", "read", "a"); !strings.HasPrefix(got, "[abc") {
		t.Errorf("a completes to %s", got)
	}
}
