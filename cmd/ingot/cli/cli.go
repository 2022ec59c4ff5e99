// Package cli is the command line of the API: profiles, and one command for each operation, made of the operation table of
// package api as the program starts. It speaks to any server of the MAAS 2.0 API and knows nothing of ours.
package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/api/client"
)

// app is what all commands share: streams and the flags that say whom to talk to.
type app struct {
	in     io.Reader
	out    io.Writer
	errOut io.Writer
	usage  func(error) error

	profile  string
	server   string
	key      string
	caFile   string
	insecure bool
	output   string
	onceKey  string

	now   func() time.Time
	every time.Duration // how often a waiting command looks
}

// Add adds the commands to a root command. usage marks an error as a mistake in flags or arguments.
func Add(root *cobra.Command, usage func(error) error) {
	a := &app{in: root.InOrStdin(), out: root.OutOrStdout(), errOut: root.ErrOrStderr(), usage: usage, now: time.Now, every: 2 * time.Second}
	a.add(root)
}

// The groups of the root command's help.
const (
	groupServer = "server"
	groupLogin  = "login"
	groupAPI    = "api"
)

func (a *app) add(root *cobra.Command) {
	taken := map[string]bool{"help": true, "completion": true}
	for _, c := range root.Commands() {
		c.GroupID = groupServer
		taken[c.Name()] = true
	}
	root.AddGroup(
		&cobra.Group{ID: groupServer, Title: "Run and administer a server:"},
		&cobra.Group{ID: groupLogin, Title: "Choose the server to talk to:"},
		&cobra.Group{ID: groupAPI, Title: "Talk to a server (ingot machines list, ingot machine deploy SYSTEM_ID):"},
	)
	root.SetHelpCommandGroupID(groupServer)
	root.CompletionOptions.DisableDefaultCmd = true
	session := []*cobra.Command{a.loginCommand(), a.logoutCommand(), a.profilesCommand(), completionCommand(root)}
	for _, c := range session {
		c.GroupID = groupLogin
		taken[c.Name()] = true
	}
	root.AddCommand(session...)
	for _, n := range nouns(taken) {
		root.AddCommand(a.nounCommand(n))
	}
}

func (a *app) usagef(format string, args ...any) error { return a.usage(fmt.Errorf(format, args...)) }

// target is the server that a command talks to, and as whom.
type target struct {
	URL     string
	Key     string
	CA      string // PEM
	Skip    bool   // trust any certificate
	Profile string // where it comes from; "" flags and environment
}

// target finds the server: flags, then environment, then the profile. The key of a profile goes to that profile's server only.
func (a *app) target() (target, error) {
	first := func(vals ...string) string {
		for _, v := range vals {
			if v != "" {
				return v
			}
		}
		return ""
	}
	url, key := a.server, a.key
	if a.profile == "" { // the environment is for one server: with a profile named it does not count
		url, key = first(url, os.Getenv("INGOT_SERVER")), first(key, os.Getenv("INGOT_KEY"))
	}
	var t target
	if url == "" {
		ps, err := loadProfiles()
		if err != nil {
			return t, err
		}
		name := first(a.profile, os.Getenv("INGOT_PROFILE"), ps.Current)
		if name == "" {
			return t, a.usagef("no server to talk to: log in with `ingot login NAME URL KEY`, or give --server and --key")
		}
		p, ok := ps.Profiles[name]
		if !ok {
			return t, a.usagef("there is no profile %q: `ingot profiles` lists them, `ingot login %s URL KEY` makes it", name, name)
		}
		t = target{URL: p.URL, Key: p.Key, CA: p.CA, Skip: p.Insecure, Profile: name}
	} else {
		if a.profile != "" {
			return t, a.usagef("--server and --profile exclude each other: a profile's key goes to its own server only")
		}
		u, err := a.normalURL(url)
		if err != nil {
			return t, err
		}
		t.URL = u
	}
	t.Key = first(key, t.Key)
	if t.Key == "-" {
		k, err := a.readKey()
		if err != nil {
			return t, err
		}
		t.Key = k
	}
	if a.caFile != "" {
		b, err := os.ReadFile(a.caFile)
		if err != nil {
			return t, err
		}
		t.CA = string(b)
	}
	t.Skip = t.Skip || a.insecure
	return t, nil
}

// readKey reads an API key from the standard input, so that it shows in no list of processes.
func (a *app) readKey() (string, error) {
	b, err := io.ReadAll(io.LimitReader(a.in, 4096))
	if err != nil {
		return "", err
	}
	k := strings.TrimSpace(string(b))
	if k == "" {
		return "", a.usagef("the API key is - but the standard input holds none")
	}
	return k, nil
}

func (a *app) connect(t target) (*client.Client, error) {
	conf := &tls.Config{InsecureSkipVerify: t.Skip}
	if t.CA != "" {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, a.usagef("the CA file holds no PEM certificate")
		}
	}
	c, err := client.New(client.Config{URL: t.URL, APIKey: t.Key, TLS: conf})
	if err != nil {
		return nil, a.usage(err)
	}
	return c, nil
}

// dial is target and connect.
func (a *app) dial() (*client.Client, target, error) {
	t, err := a.target()
	if err != nil {
		return nil, t, err
	}
	c, err := a.connect(t)
	return c, t, err
}

// context is a command's context, with what the flags add to each call.
func (a *app) context(cmd *cobra.Command) context.Context {
	ctx := cmd.Context()
	if a.onceKey != "" {
		ctx = client.WithIdempotencyKey(ctx, a.onceKey)
	}
	return ctx
}

// connectionFlags are the flags of every command that talks to a server.
func (a *app) connectionFlags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&a.profile, "profile", "", "profile to use (INGOT_PROFILE; else the current one)")
	f.StringVar(&a.server, "server", "", "address of the server instead of a profile (INGOT_SERVER)")
	f.StringVar(&a.key, "key", "", "API key, - reads it from the standard input (INGOT_KEY)")
	f.StringVar(&a.caFile, "ca-file", "", "PEM file with the authorities to trust")
	f.BoolVar(&a.insecure, "insecure", false, "trust any certificate")
	_ = c.RegisterFlagCompletionFunc("profile", a.completeProfiles)
}
