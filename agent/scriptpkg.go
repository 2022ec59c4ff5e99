package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
)

// programOf are programs that come with packages of that name: an environment without a package manager may have the program.
var programOf = map[string]string{"smartmontools": "smartctl", "stress-ng": "stress-ng", "p7zip-full": "7z", "e2fsprogs": "badblocks", "nvme-cli": "nvme"}

// installing keeps package managers, which lock each other out, to one at a time.
var installing sync.Mutex

// packages installs what a script needs, with the tools of the environment.
func (r *scriptRun) packages(ctx context.Context) error {
	installing.Lock()
	defer installing.Unlock()
	cmd := commander{log: func(line string) { fmt.Fprintln(r.out.output(), line) }}
	updated := false
	for _, kind := range []string{"apt", "snap", "url"} {
		raw, ok := r.Packages[kind]
		if !ok {
			continue
		}
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			list = []json.RawMessage{raw}
		}
		for _, p := range list {
			name := plainValue(p)
			switch kind {
			case "apt":
				if installed(name) {
					fmt.Fprintf(r.out.output(), "%s is there already\n", name)
					continue
				}
				if find("/", "apt-get") == "" {
					return fmt.Errorf("the script needs the package %s, and this environment cannot install packages: run it in the full environment, or in one whose image has it", name)
				}
				if !updated {
					updated = true
					if err := cmd.run(ctx, "apt-get", "-qq", "update"); err != nil {
						return err
					}
				}
				if err := cmd.run(ctx, "apt-get", "-qy", "--no-install-recommends", "install", "--", name); err != nil {
					return err
				}
			case "snap":
				if err := snap(ctx, cmd, p, name); err != nil {
					return err
				}
			default:
				if err := r.download(ctx, cmd, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// installed tells whether a Debian package, or the program that it is for, is there.
func installed(name string) bool {
	if _, err := os.Stat("/var/lib/dpkg/info/" + path.Base(name) + ".list"); err == nil {
		return true
	}
	program := firstOf(programOf[name], name)
	return path.Base(program) == program && find("/", program) != ""
}

func snap(ctx context.Context, cmd commander, raw json.RawMessage, name string) error {
	var p struct {
		Name    string `json:"name"`
		Channel string `json:"channel"`
		Mode    string `json:"mode"`
	}
	if json.Unmarshal(raw, &p) != nil {
		p.Name = name
	}
	if find("/", "snap") == "" {
		return fmt.Errorf("the script needs the snap %s, and this environment has no snapd: name a Debian package or a URL instead", p.Name)
	}
	args := []string{"install"}
	if p.Channel != "" {
		args = append(args, "--channel="+p.Channel)
	}
	if flag := map[string]string{"classic": "--classic", "dev": "--devmode", "jail": "--jailmode"}[p.Mode]; flag != "" {
		args = append(args, flag)
	}
	return cmd.run(ctx, "snap", append(args, "--", p.Name)...)
}

// download fetches a file into DOWNLOAD_PATH and installs or unpacks it, by its name.
func (r *scriptRun) download(ctx context.Context, cmd commander, url string) error {
	if _, err := checkURL(url); err != nil {
		return err
	}
	dir := filepath.Join(r.dir, "download")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	base := path.Base(strings.SplitN(url, "?", 2)[0])
	if base == "." || base == "/" || base == ".." {
		base = "file"
	}
	file := filepath.Join(dir, base)
	fmt.Fprintf(r.out.output(), "fetching %s\n", url)
	if err := r.a.save(ctx, url, file); err != nil {
		return err
	}
	switch {
	case strings.HasSuffix(base, ".deb"):
		if find("/", "dpkg") == "" {
			return fmt.Errorf("%s is a Debian package, and this environment cannot install packages: run the script in the full environment", base)
		}
		err := cmd.run(ctx, "dpkg", "-i", file)
		if err == nil || find("/", "apt-get") == "" {
			return err
		}
		return cmd.run(ctx, "apt-get", "-qy", "--fix-broken", "install") // what it depends on
	case strings.HasSuffix(base, ".snap"):
		return cmd.run(ctx, "snap", "install", "--dangerous", file)
	case strings.Contains(base, ".tar"), strings.HasSuffix(base, ".tgz"), strings.HasSuffix(base, ".tbz"), strings.HasSuffix(base, ".txz"):
		return cmd.run(ctx, "tar", "-xf", file, "-C", dir)
	}
	return nil
}

func (a *agent) save(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := a.client.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}
