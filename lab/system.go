package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// bootDisk starts what a disk holds; -1 takes the first that boots.
func (m *Machine) bootDisk(ctx context.Context, disk int) (action, error) {
	mode := m.cfg.Firmware.Mode()
	var d *Disk
	var sys *installedSystem
	var at int64
	errs := []error{}
	for i, x := range m.disks {
		if disk >= 0 && i != disk {
			continue
		}
		s, on, off, err := m.bootable(x, mode)
		if err != nil {
			errs = append(errs, fmt.Errorf("disk %s: %w", x.Name, err))
			continue
		}
		d, sys, at = on, s, off
		break
	}
	if sys == nil {
		// Server firmware whose boot list is exhausted starts it anew.
		m.set(StateNothing)
		m.step("boot", fmt.Sprintf("no bootable device: %v", errors.Join(errs...)))
		return actReboot, consoleSleep(ctx, "30")
	}
	m.step("boot", "from disk "+d.Name)
	return m.runSystem(ctx, d, at, sys)
}

// runSystem is the installed system (d is nil: it runs in memory): its network, on the first boot cloud-init's requests, then it stays up.
func (m *Machine) runSystem(ctx context.Context, d *Disk, at int64, sys *installedSystem) (action, error) {
	run := &System{Hostname: sys.Hostname, ImagePath: sys.Image.Path, ImageSHA: sys.Image.SHA256}
	if a := staticAddress(sys.Network, m.cfg.MAC); a != "" {
		run.Address = a
	} else {
		l, err := m.dhcp(ctx, dhcpSystem)
		if ctx.Err() != nil {
			return actOff, ctx.Err()
		}
		if err == nil {
			run.Address = l.IP.String()
		} else {
			m.step("os", "no address: "+err.Error())
		}
	}
	publish := func() {
		m.mu.Lock()
		m.sys = run
		m.mu.Unlock()
		m.set(StateInstalled)
	}
	if sys.BootedAt != "" {
		publish()
		return actStay, nil
	}
	if err := m.enter(ctx, "first-boot"); err != nil {
		return m.hang(err)
	}
	run.FirstBoot = true
	p := &preseed{}
	for _, f := range sys.Seed {
		var s preseed
		if yaml.Unmarshal([]byte(f.Content), &s) != nil {
			continue // seeds that are no cloud-config mapping: hostname, keys
		}
		if s.Datasource.MAAS.MetadataURL != "" {
			p.Datasource = s.Datasource
		}
		if s.Reporting.MAAS.Endpoint != "" {
			p.Reporting = s.Reporting
		}
	}
	if p.Datasource.MAAS.MetadataURL == "" {
		publish()
		return actStay, errors.New("the installed system has no MAAS datasource in its seed")
	}
	c := &metadata{m: m}
	c.use(p)
	c.event(ctx, "cloudinit", "init-local", "finish", "SUCCESS")
	if err := m.enter(ctx, "user-data"); err != nil {
		return m.hang(err)
	}
	got, userData, err := c.datasource(ctx)
	if ctx.Err() != nil {
		return actOff, ctx.Err()
	}
	if err != nil {
		// cloud-init goes on without its datasource: the machine is up and nobody can log in.
		publish()
		return actStay, err
	}
	run.InstanceID, run.PublicKeys, run.UserData = got.InstanceID, got.PublicKeys, userData
	if got.Hostname != "" {
		run.Hostname = got.Hostname
	}
	c.event(ctx, "cloudinit", "init-network", "finish", "SUCCESS")
	c.event(ctx, "cloudinit", "modules-config", "finish", "SUCCESS")
	if err := m.enter(ctx, "final"); err != nil {
		return m.hang(err)
	}
	c.event(ctx, "cloudinit", "modules-final", "finish", "SUCCESS")
	sys.BootedAt = time.Now().UTC().Format(time.RFC3339)
	if d != nil {
		if err := d.writeRecord(at, sys); err != nil {
			return m.hang(err)
		}
	}
	publish()
	m.changed()
	return actStay, nil
}

// staticAddress finds the address that a netplan document gives the interface with this MAC, "" when it asks DHCP.
func staticAddress(netplan map[string]any, mac string) string {
	// Through YAML and back: the plan came as JSON with free-form values.
	raw, err := yaml.Marshal(netplan)
	if err != nil {
		return ""
	}
	var doc struct {
		Network struct {
			Ethernets map[string]struct {
				Match struct {
					MAC string `yaml:"macaddress"`
				} `yaml:"match"`
				Addresses []string `yaml:"addresses"`
			} `yaml:"ethernets"`
		} `yaml:"network"`
		Ethernets map[string]struct {
			Match struct {
				MAC string `yaml:"macaddress"`
			} `yaml:"match"`
			Addresses []string `yaml:"addresses"`
		} `yaml:"ethernets"`
	}
	if yaml.Unmarshal(raw, &doc) != nil {
		return ""
	}
	if doc.Ethernets == nil {
		doc.Ethernets = doc.Network.Ethernets
	}
	for _, e := range doc.Ethernets {
		if len(e.Addresses) > 0 && (e.Match.MAC == "" || equalMAC(e.Match.MAC, mac)) {
			a := e.Addresses[0]
			for i := range a {
				if a[i] == '/' {
					return a[:i]
				}
			}
			return a
		}
	}
	return ""
}
