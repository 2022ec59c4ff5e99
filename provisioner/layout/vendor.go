package layout

import (
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"
)

// Vendor is the document at meta-data/vendor-data: what the site wants of a machine's cloud-init, beside what its user wants.
type Vendor struct {
	NTP            []string
	DropRunNetplan bool              // forget the network that the initramfs set up: the ephemeral environments
	VCenter        map[string]string // what an ESXi registers itself with; empty: nothing
	Sync           *HardwareSync
}

// HardwareSync makes an installed system report its hardware now and then.
type HardwareSync struct {
	Agent    string        // URL of the agent for the machine's architecture
	Preseed  Preseed       // where to report to, as whom
	Interval time.Duration // at least a minute
}

type writeFile struct {
	Path        string `yaml:"path"`
	Permissions string `yaml:"permissions,omitempty"`
	Content     string `yaml:"content"`
}

// Where the parts of hardware sync are in the installed system.
const (
	syncConfig  = "/etc/ingot/hardware-sync.cfg"
	syncService = "/etc/systemd/system/ingot-hardware-sync.service"
	syncTimer   = "/etc/systemd/system/ingot-hardware-sync.timer"
)

var agentURL = regexp.MustCompile(`^http://[A-Za-z0-9.:\[\]-]+/machine-resources/[a-z0-9]+/ingot-agent$`)

// Render writes the document: a YAML mapping whose entry cloud-init holds a cloud-config.
func (v Vendor) Render() ([]byte, error) {
	type ntpConfig struct {
		Servers []string `yaml:"servers,omitempty"`
		Pools   []string `yaml:"pools,omitempty"`
	}
	inner := struct {
		NTP        *ntpConfig  `yaml:"ntp,omitempty"`
		WriteFiles []writeFile `yaml:"write_files,omitempty"`
		RunCmd     []any       `yaml:"runcmd,omitempty"` // a text is for the shell, a list for nobody but the program
	}{}
	if len(v.NTP) > 0 {
		inner.NTP = &ntpConfig{}
		for _, s := range v.NTP {
			if _, err := netip.ParseAddr(s); err == nil {
				inner.NTP.Servers = append(inner.NTP.Servers, s)
			} else {
				inner.NTP.Pools = append(inner.NTP.Pools, s)
			}
		}
	}
	if v.DropRunNetplan {
		inner.RunCmd = append(inner.RunCmd, "rm -rf /run/netplan")
	}
	if len(v.VCenter) > 0 {
		body, err := yaml.Marshal(v.VCenter)
		if err != nil {
			return nil, err
		}
		inner.WriteFiles = append(inner.WriteFiles, writeFile{Path: "/altbootbank/maas/vcenter.yaml", Content: string(body)})
	}
	if v.Sync != nil {
		files, err := v.Sync.files()
		if err != nil {
			return nil, err
		}
		inner.WriteFiles = append(inner.WriteFiles, files...)
		inner.RunCmd = append(inner.RunCmd, []string{"systemctl", "daemon-reload"}, []string{"systemctl", "enable", "--now", "ingot-hardware-sync.timer"})
	}
	body, err := document(inner, "#cloud-config\n")
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(map[string]string{"cloud-init": string(body)})
}

// files are a service that has the agent report, and its timer. The agent is fetched once, when the rest of the system comes from the rack too:
// a system in use must not run, as root and every quarter of an hour, whatever then answers by HTTP in the rack's name.
func (s *HardwareSync) files() ([]writeFile, error) {
	if !agentURL.MatchString(s.Agent) { // it becomes part of a unit
		return nil, fmt.Errorf("agent URL %q", s.Agent)
	}
	config, err := s.Preseed.Render()
	if err != nil {
		return nil, err
	}
	const agent = "/var/lib/ingot/ingot-agent" // on many systems no program may be started from /run
	service := "[Unit]\nDescription=Report this machine's hardware\nAfter=network-online.target\nWants=network-online.target\n\n[Service]\nType=oneshot\nStateDirectory=ingot\n" +
		`ExecStartPre=/bin/sh -c 'if [ ! -x ` + agent + ` ]; then { curl -fsS -o ` + agent + `.new "$$0" || wget -q -O ` + agent + `.new "$$0"; } && chmod 0700 ` +
		agent + `.new && mv ` + agent + `.new ` + agent + `; fi' ` + s.Agent + "\nExecStart=" + agent + " sync --config " + syncConfig + "\n"
	timer := fmt.Sprintf("[Unit]\nDescription=Report this machine's hardware now and then\n\n[Timer]\nOnBootSec=1min\nOnUnitActiveSec=%ds\n\n[Install]\nWantedBy=timers.target\n",
		int64(max(s.Interval, time.Minute)/time.Second))
	return []writeFile{{syncConfig, "0600", string(config)}, {syncService, "0644", service}, {syncTimer, "0644", timer}}, nil
}
