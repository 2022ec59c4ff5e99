package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/lab"
)

func showCommand(g *globals) *cobra.Command {
	var o devOptions
	var quit bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Like dev, and perform the main job once: enlist, commission, allocate, deploy, release, step by step with times",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("log-level") {
				g.logLevel = "warn" // the steps are the output
			}
			if o.machines < 1 {
				return usagef("--machines: the show needs at least one")
			}
			log, err := g.log()
			if err != nil {
				return err
			}
			err = runDev(cmd.Context(), o, log, g.stdout, func(ctx context.Context, d *devSite) error {
				if err := d.show(ctx); err != nil {
					return fmt.Errorf("the show: %w", err)
				}
				d.next(!quit)
				if quit {
					return errDone
				}
				return nil
			})
			if errors.Is(err, errDone) {
				return nil
			}
			return err
		},
	}
	o.add(c)
	c.Flags().BoolVar(&quit, "quit", false, "end after the show instead of staying up")
	return c
}

// stepTimeout bounds each step of the show.
const stepTimeout = 60 * time.Second

// step runs one step of the show and prints what came of it and how long it took.
func (d *devSite) step(ctx context.Context, n int, title string, do func(context.Context) (string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	fmt.Fprintf(d.out, "%d. %-46s", n, title)
	begin := time.Now()
	text, err := do(ctx)
	if err != nil {
		fmt.Fprintf(d.out, " failed\n")
		if ctx.Err() == context.DeadlineExceeded {
			return fmt.Errorf("%s: not done within %s: %w", title, stepTimeout, err)
		}
		return fmt.Errorf("%s: %w", title, err)
	}
	fmt.Fprintf(d.out, " %6.2f s  %s\n", time.Since(begin).Seconds(), text)
	return nil
}

// show carries the first lab machine through its life, as a client of the API.
func (d *devSite) show(ctx context.Context) error {
	begin := time.Now()
	m := d.site.Machines[0]
	mac := m.Config().MAC
	var id string
	// The region asks the BMC some seconds after a machine's work; that the machine is off, the lab sees at once.
	ready := func(x api.Machine) bool { return x.StatusName == "Ready" && !m.On() }

	fmt.Fprintf(d.out, "\nThe machine %s (%s, MAC %s, BMC %s by IPMI) and the API:\n\n", m.Config().Name, m.Config().Firmware, mac, m.BMCAddress())
	err := d.step(ctx, 1, "switched on, it enlists itself", func(ctx context.Context) (string, error) {
		for {
			l, err := d.client.MachinesList(ctx, api.MachinesListParams{MACAddress: []string{mac}})
			if err != nil {
				return "", err
			}
			if len(l) == 1 && !m.On() && l[0].StatusName != "Commissioning" {
				id = l[0].SystemID
				return fmt.Sprintf("%s: %s, %s", l[0].StatusName, l[0].SystemID, l[0].FQDN), nil
			}
			if err := pause(ctx); err != nil {
				return "", err
			}
		}
	})
	if err != nil {
		return err
	}
	if err := d.step(ctx, 2, "commission", func(ctx context.Context) (string, error) {
		now, err := d.client.MachineRead(ctx, api.MachineReadParams{SystemID: id})
		if err != nil {
			return "", err
		}
		if !ready(now) { // it is when the folder is that of an earlier show
			if _, err := d.client.MachineCommission(ctx, api.MachineCommissionParams{SystemID: id}); err != nil {
				return "", err
			}
			if now, err = d.wait(ctx, id, ready, "Commissioning", "Testing", "Ready"); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("Ready: %d CPUs, %d MiB, %d disk(s), %d interface(s)", now.CPUCount, now.Memory, len(now.BlockdeviceSet), len(now.InterfaceSet)), nil
	}); err != nil {
		return err
	}
	if err := d.step(ctx, 3, "allocate with mem=4096 cpu_count=2", func(ctx context.Context) (string, error) {
		got, err := d.client.MachinesAllocate(ctx, api.MachinesAllocateParams{Mem: []string{"4096"}, CPUCount: []string{"2"}, SystemID: []string{id}})
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, owner %s", got.StatusName, deref(got.Owner)), nil
	}); err != nil {
		return err
	}
	const userData = "#cloud-config\nruncmd: [\"echo hello from the show\"]\n"
	key, err := freshKey()
	if err != nil {
		return err
	}
	if err := d.step(ctx, 4, "deploy custom/lab with user data and SSH key", func(ctx context.Context) (string, error) {
		made, err := d.client.SshKeysCreate(ctx, api.SshKeysCreateParams{Key: key})
		if err != nil {
			return "", err
		}
		defer d.client.SshKeyDelete(context.WithoutCancel(ctx), api.SshKeyDeleteParams{ID: made.ID})
		if _, err := d.client.MachineDeploy(ctx, api.MachineDeployParams{SystemID: id, DistroSeries: ptr("custom/lab"), UserData: ptr(base64.StdEncoding.EncodeToString([]byte(userData)))}); err != nil {
			return "", err
		}
		now, err := d.wait(ctx, id, func(x api.Machine) bool { return x.StatusName == "Deployed" }, "Deploying", "Deployed")
		if err != nil {
			return "", err
		}
		// Deployed is what the region says. The machine says the rest: it runs from its own disk, with our data.
		if err := m.Wait(ctx, func(m *lab.Machine) bool { return m.System() != nil }); err != nil {
			return "", err
		}
		sys := m.System()
		if string(sys.UserData) != userData || !slices.Contains(sys.PublicKeys, key) {
			return "", errors.New("the installed system did not get the user data and the key")
		}
		return fmt.Sprintf("Deployed: boots from disk, %s, key and user data arrived", strings.Join(now.IPAddresses, " ")), nil
	}); err != nil {
		return err
	}
	if err := d.step(ctx, 5, "release with erase=true quick_erase=true", func(ctx context.Context) (string, error) {
		if _, err := d.client.MachineRelease(ctx, api.MachineReleaseParams{SystemID: id, Erase: ptr(true), QuickErase: ptr(true)}); err != nil {
			return "", err
		}
		if _, err := d.wait(ctx, id, ready, "Releasing", "Disk erasing", "Ready"); err != nil {
			return "", err
		}
		disk := m.Disk(m.Config().Disks[0].Name)
		if disk.Contains("EFI PART") || disk.Contains("metadata_url") {
			return "", errors.New("the disk still holds the old system")
		}
		return "Ready: disk erased, powered off", nil
	}); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\nThe whole life took %.2f s.\n", time.Since(begin).Seconds())
	return nil
}

// wait polls a machine until ok. A status that is not on the way is an error.
func (d *devSite) wait(ctx context.Context, id string, ok func(api.Machine) bool, way ...string) (api.Machine, error) {
	for {
		m, err := d.client.MachineRead(ctx, api.MachineReadParams{SystemID: id})
		if err != nil {
			return m, err
		}
		if ok(m) {
			return m, nil
		}
		if !slices.Contains(way, m.StatusName) {
			return m, fmt.Errorf("the machine is %s: %s", m.StatusName, m.ErrorDescription+" "+deref(m.StatusMessage))
		}
		if err := pause(ctx); err != nil {
			return m, fmt.Errorf("the machine is %s (power %s): %w", m.StatusName, m.PowerState, err)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func freshKey() (string, error) {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) + " show@ingot", nil
}

// next prints how to go on.
func (d *devSite) next(stays bool) {
	if !stays {
		return
	}
	file := filepath.Join(d.dir, "admin.apikey")
	fmt.Fprintf(d.out, `
URL:      %[1]s/MAAS/
API key:  %[2]s   (in %[3]s)

Next:
  IFS=: read C T S < %[3]s
  curl -H "Authorization: OAuth oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"$C\", oauth_token=\"$T\", oauth_signature=\"%%26$S\", oauth_nonce=\"$(date +%%s%%N)\", oauth_timestamp=\"$(date +%%s)\"" %[1]s/MAAS/api/2.0/machines/
  maas login ingot %[1]s/MAAS/ "$C:$T:$S" && maas ingot machines read

The site stays up; end it with Ctrl-C. What it keeps is in %[4]s.
`, d.url, d.apiKey, file, d.dir)
}
