package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// SiteConfig describes a set of similar machines.
type SiteConfig struct {
	Machines int
	// Firmwares are handed out in turn; nil is all kinds.
	Firmwares []Firmware
	// Disks is how many disks of 20 GiB each machine has; 0 is 1.
	Disks int
	// Dir keeps the machines' disks and power between runs; "" keeps nothing.
	Dir   string
	DHCP  netip.AddrPort
	Relay netip.Addr
	TFTP  netip.AddrPort
	// First numbers the machines from there, so that several sites can share a subnet; 0 is 1.
	First  int
	Faults Faults
	Retry  []time.Duration
	Before func(machine, step string)
	OnStep func(machine string, s Step)
	Log    *slog.Logger
}

// Site is a set of machines.
type Site struct {
	cfg      SiteConfig
	fresh    []*Machine
	Machines []*Machine
}

// machineState is a machine between two runs, as a file.
type machineState struct {
	Version int                          `json:"version"`
	Name    string                       `json:"name"`
	On      bool                         `json:"on"`
	BMC     string                       `json:"bmc"`
	Disks   map[string]map[string]string `json:"disks"`
}

// NewSite makes the machines, with what Dir remembers of them.
func NewSite(c SiteConfig) (*Site, error) {
	if c.First == 0 {
		c.First = 1
	}
	if len(c.Firmwares) == 0 {
		c.Firmwares = Firmwares
	}
	if c.Disks < 0 || c.Disks > 26 {
		return nil, fmt.Errorf("%d disks: between 0 and 26 are possible", c.Disks)
	}
	if c.Machines < 0 || c.Machines+c.First > 65536 {
		return nil, fmt.Errorf("%d machines: between 0 and 65000 are possible", c.Machines)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dir != "" {
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return nil, err
		}
	}
	s := &Site{cfg: c}
	for i := range c.Machines {
		m, err := s.make(c.First + i)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.Machines = append(s.Machines, m)
	}
	return s, nil
}

func (s *Site) make(n int) (*Machine, error) {
	name := fmt.Sprintf("lab-%d", n)
	cfg := Config{
		Name: name, MAC: fmt.Sprintf("52:54:00:77:%02x:%02x", n>>8, n&0xff), Firmware: s.cfg.Firmwares[(n-1)%len(s.cfg.Firmwares)],
		DHCP: s.cfg.DHCP, Relay: s.cfg.Relay, TFTP: s.cfg.TFTP, Faults: s.cfg.Faults, Retry: s.cfg.Retry, Log: s.cfg.Log,
	}
	for i := range s.cfg.Disks {
		cfg.Disks = append(cfg.Disks, DiskConfig{Name: "vd" + string(rune('a'+i)), Serial: fmt.Sprintf("%s-disk-%d", name, i), Model: "Lab disk", Size: 20 << 30})
	}
	cfg.Faults.Seed += uint64(n)
	if s.cfg.Before != nil {
		cfg.Before = func(step string) { s.cfg.Before(name, step) }
	}
	if s.cfg.OnStep != nil {
		cfg.OnStep = func(st Step) { s.cfg.OnStep(name, st) }
	}
	old, err := s.load(name)
	if err != nil {
		return nil, err
	}
	if s.cfg.Dir != "" {
		var mu sync.Mutex
		cfg.OnChange = func(m *Machine) {
			mu.Lock()
			defer mu.Unlock()
			if err := s.save(m); err != nil {
				s.cfg.Log.Error("save lab machine", "lab_machine", name, "err", err)
			}
		}
	}
	if old == nil {
		m, err := New(cfg)
		if err == nil {
			s.fresh = append(s.fresh, m)
		}
		return m, err
	}
	// The server knows the BMC by its port: take the same again while it is free.
	cfg.BMC.Address = old.BMC
	m, err := New(cfg)
	if err != nil {
		return nil, fmt.Errorf("the BMC port that machine %s had before: %w", name, err)
	}
	for _, d := range m.disks {
		if err := d.restore(old.Disks[d.Name]); err != nil {
			m.Close()
			return nil, err
		}
	}
	m.on = old.On // power came back: what was on starts again
	return m, nil
}

func (s *Site) path(name string) string { return filepath.Join(s.cfg.Dir, name+".json") }

func (s *Site) load(name string) (*machineState, error) {
	if s.cfg.Dir == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(s.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st := &machineState{}
	if err := json.Unmarshal(raw, st); err != nil {
		return nil, fmt.Errorf("state of machine %s: %w", name, err)
	}
	return st, nil
}

func (s *Site) save(m *Machine) error {
	st := machineState{Version: 1, Name: m.cfg.Name, On: m.On(), BMC: m.BMCAddress(), Disks: map[string]map[string]string{}}
	for _, d := range m.disks {
		st.Disks[d.Name] = d.snapshot()
	}
	raw, err := json.Marshal(st)
	if err != nil {
		return err
	}
	tmp := s.path(m.cfg.Name) + ".tmp"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, s.path(m.cfg.Name))
}

// Run runs all machines until ctx ends or one fails.
func (s *Site) Run(ctx context.Context) error {
	if s.cfg.Dir != "" {
		for _, m := range s.Machines {
			if err := s.save(m); err != nil {
				return err
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range s.Machines {
		g.Go(func() error { return m.Run(ctx) })
	}
	if len(s.Machines) == 0 {
		<-ctx.Done()
	}
	return g.Wait()
}

// PowerOn switches every machine on.
func (s *Site) PowerOn() {
	for _, m := range s.Machines {
		m.PowerOn()
	}
}

// PowerOnNew switches those machines on that Dir had never seen: their first boot enlists them.
func (s *Site) PowerOnNew() {
	for _, m := range s.fresh {
		m.PowerOn()
	}
}

// Close frees a site that was never run.
func (s *Site) Close() {
	for _, m := range s.Machines {
		m.Close()
	}
}

// Machine returns a machine by name or MAC address, nil when there is none.
func (s *Site) Machine(name string) *Machine {
	for _, m := range s.Machines {
		if m.cfg.Name == name || equalMAC(m.cfg.MAC, name) {
			return m
		}
	}
	return nil
}
