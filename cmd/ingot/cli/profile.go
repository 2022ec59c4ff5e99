package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

// profile is a server and a key to it.
type profile struct {
	URL      string `json:"url"`
	Key      string `json:"key"`
	CA       string `json:"ca,omitempty"`
	Insecure bool   `json:"insecure,omitempty"`
}

// profiles is the file that holds them.
type profiles struct {
	Current  string             `json:"current"`
	Profiles map[string]profile `json:"profiles"`
}

func profilesPath() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("profiles need a place: set XDG_CONFIG_HOME or HOME")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "ingot", "profiles.json"), nil
}

func loadProfiles() (profiles, error) {
	ps := profiles{Profiles: map[string]profile{}}
	path, err := profilesPath()
	if err != nil {
		return ps, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ps, nil
	}
	if err != nil {
		return ps, err
	}
	if err := json.Unmarshal(b, &ps); err != nil {
		return ps, fmt.Errorf("%s is damaged (%v): remove it and log in again", path, err)
	}
	if ps.Profiles == nil {
		ps.Profiles = map[string]profile{}
	}
	return ps, nil
}

// save replaces the file in one step: nobody else may read it, and a crash leaves the old one or the new one.
func (ps profiles) save() error {
	path, err := profilesPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(ps, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".profiles-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// normalURL is scheme and host of an address as people write it: with the path of the API, without a scheme.
func (a *app) normalURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", a.usagef("%q is no address of a server: it looks like http://host:5240", s)
	}
	if u.User != nil {
		return "", a.usagef("the address of a server holds no user and password")
	}
	if path := strings.Trim(u.Path, "/"); path != "" && path != "MAAS" && !strings.HasPrefix(path, "MAAS/") {
		return "", a.usagef("%q: the API is at /MAAS of a host, so the address is just %s://%s", s, u.Scheme, u.Host)
	}
	return u.Scheme + "://" + u.Host, nil
}

func (a *app) loginCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "login NAME URL KEY|-",
		Short: "Remember a server and an API key under a name, and use it from now on",
		Long: `Checks that the server takes the key, and keeps both under a name in $XDG_CONFIG_HOME/ingot/profiles.json (mode 0600).
The key has three parts, consumer:token:secret. With - it is read from the standard input: it then shows in no list of processes.`,
		Example: "  ingot login lab http://127.0.0.1:5240 - < dev/admin.apikey\n  ingot login prod https://maas.example:5443 - --ca-file ca.pem < key",
	}
	c.Flags().StringVar(&a.caFile, "ca-file", "", "PEM file with the authorities to trust; its content is kept")
	c.Flags().BoolVar(&a.insecure, "insecure", false, "trust any certificate, from now on")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) != 3 {
			return a.usagef("login takes NAME URL KEY; KEY may be - to read it from the standard input")
		}
		name := args[0]
		if name == "" || strings.ContainsAny(name, " \t\n/") {
			return a.usagef("%q is no name for a profile: one word, please", name)
		}
		a.server, a.key, a.profile = args[1], args[2], ""
		t, err := a.target()
		if err != nil {
			return err
		}
		cl, err := a.connect(t)
		if err != nil {
			return err
		}
		version, err := cl.VersionRead(cmd.Context(), api.VersionReadParams{})
		if err != nil {
			return a.explain(api.Lookup("version.read"), t, err)
		}
		me, err := cl.UsersWhoami(cmd.Context(), api.UsersWhoamiParams{})
		if client.IsStatus(err, 401) {
			return fmt.Errorf("%s rejected the API key. Is it complete (consumer:token:secret), and of this server?\n  %s", t.URL, serverText(err))
		} else if err != nil {
			return a.explain(api.Lookup("users.whoami"), t, err)
		}
		ps, err := loadProfiles()
		if err != nil {
			return err
		}
		ps.Profiles[name] = profile{URL: t.URL, Key: t.Key, CA: t.CA, Insecure: t.Skip}
		ps.Current = name
		if err := ps.save(); err != nil {
			return err
		}
		role := "user"
		if me.IsSuperuser {
			role = "administrator"
		}
		product := "API " + version.Version
		if version.Subversion != "" {
			product += " (" + version.Subversion + ")"
		}
		fmt.Fprintf(a.out, "Logged in to %s as %s, %s. %s.\n", t.URL, clean(me.Username), role, clean(product))
		return nil
	}
	return c
}

func (a *app) logoutCommand() *cobra.Command {
	c := &cobra.Command{Use: "logout [NAME]", Short: "Forget a profile and its key (the server keeps the key)", ValidArgsFunction: a.completeProfiles}
	c.RunE = func(_ *cobra.Command, args []string) error {
		ps, err := loadProfiles()
		if err != nil {
			return err
		}
		name := ps.Current
		if len(args) == 1 {
			name = args[0]
		}
		if _, ok := ps.Profiles[name]; !ok || len(args) > 1 {
			return a.usagef("logout takes the name of one profile: `ingot profiles` lists them")
		}
		delete(ps.Profiles, name)
		if ps.Current == name {
			ps.Current = ""
		}
		if err := ps.save(); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "Profile %s is gone. `ingot account delete-authorisation-token` takes a key from a server.\n", name)
		return nil
	}
	return c
}

func (a *app) profilesCommand() *cobra.Command {
	c := &cobra.Command{Use: "profiles", Short: "List the profiles; * marks the current one", Args: cobra.NoArgs}
	c.RunE = func(*cobra.Command, []string) error {
		ps, err := loadProfiles()
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "\tNAME\tSERVER\tTRUST")
		for _, name := range slices.Sorted(maps.Keys(ps.Profiles)) {
			p, mark, trust := ps.Profiles[name], "", "system"
			if name == ps.Current {
				mark = "*"
			}
			switch {
			case p.Insecure:
				trust = "any certificate"
			case p.CA != "":
				trust = "own authorities"
			case strings.HasPrefix(p.URL, "http:"):
				trust = "-"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", mark, name, p.URL, trust)
		}
		return w.Flush()
	}
	use := &cobra.Command{Use: "use NAME", Short: "Make a profile the current one", ValidArgsFunction: a.completeProfiles}
	use.RunE = func(_ *cobra.Command, args []string) error {
		ps, err := loadProfiles()
		if err != nil {
			return err
		}
		if len(args) != 1 {
			return a.usagef("use takes the name of one profile: `ingot profiles` lists them")
		}
		p, ok := ps.Profiles[args[0]]
		if !ok {
			return a.usagef("there is no profile %q: `ingot profiles` lists them", args[0])
		}
		ps.Current = args[0]
		if err := ps.save(); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "Profile %s: %s\n", args[0], p.URL)
		return nil
	}
	c.AddCommand(use)
	return c
}

func (a *app) completeProfiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	ps, err := loadProfiles()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, n := range slices.Sorted(maps.Keys(ps.Profiles)) {
		names = append(names, n+"\t"+ps.Profiles[n].URL)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
