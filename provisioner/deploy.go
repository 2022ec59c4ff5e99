package provisioner

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// DeployRequest says what to install.
type DeployRequest struct {
	DistroSeries string
	HWEKernel    string
	LicenseKey   *string // of the system; nil: the one that is stored for its series
	UserData     string  // base64, or plain
	AgentName    string  // only when the deploy acquires the machine
	Comment      string
	Ephemeral    bool // to memory
	EnableHWSync bool
	VCenter      *bool     // registration with a vCenter, of an administrator's ESXi; nil: yes
	RemovedFlags []string  // install_kvm and its like, given as true
	Bridges      BridgeAll // only when the deploy acquires the machine
}

// InstallLog is the name of the one result of an installation set, curtin's log.
const InstallLog = "/tmp/install.log"

// maxUserData bounds what a machine's cloud-init gets.
const maxUserData = 4 << 20

// Deploy installs an operating system on a machine. A Ready machine becomes the caller's first.
func (s *Service) Deploy(ctx context.Context, systemID string, req DeployRequest) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		return s.deploy(ctx, tx, n, req)
	})
}

func (s *Service) deploy(ctx context.Context, tx *storage.Tx, n *storage.Node, req DeployRequest) error {
	a := ActorFrom(ctx)
	if !in(n.Status, storage.StatusReady, storage.StatusAllocated) {
		return Errorf(Conflict, "Can't deploy a machine that is in the '%s' state", n.Status)
	}
	if n.OwnerID != nil && !a.System && *n.OwnerID != a.User.ID {
		return Errorf(Forbidden, "The machine %s is allocated to somebody else.", n.SystemID)
	}
	if len(req.RemovedFlags) > 0 {
		return Errorf(Invalid, "Support for %s has been removed.", strings.Join(req.RemovedFlags, ", "))
	}
	if n.PowerType == "" {
		return Errorf(Invalid, "Unconfigured power type. Please set the power type for this machine and try again.")
	}
	userData, err := decodeUserData(req.UserData)
	if err != nil {
		return err
	}
	image, err := s.deployImage(tx, n, req)
	if err != nil {
		return err
	}
	osystem, series, _ := strings.Cut(image.Name, "/")
	if req.EnableHWSync && (osystem == "windows" || osystem == "esxi") {
		return FieldError("enable_hw_sync", "Hardware sync needs a Linux system: %s is none.", image.Name)
	}
	kernel, err := s.chooseKernel(tx, n, image, req.HWEKernel)
	if err != nil {
		return err
	}
	memory, err := s.checkDeployable(tx, n, image, req.Ephemeral)
	if err != nil {
		return err
	}
	env, err := s.deployEnvironment(tx, n, memory)
	if err != nil {
		return err
	}
	chained := false
	if n.Status == storage.StatusReady {
		if err := s.acquire(ctx, tx, n, req.AgentName, "", req.Bridges); err != nil {
			return err
		}
		chained = true
	}
	if err := s.userEvent(tx, n, evReqDeploy, req.Comment); err != nil {
		return err
	}
	if err := s.transition(tx, n, storage.StatusDeploying, transitionOpts{chained: chained, newBoot: true, change: func(n *storage.Node) {
		n.Osystem, n.DistroSeries, n.HWEKernel = osystem, series, kernel
		n.UserData, n.EnableHWSync, n.EphemeralDeploy = userData, req.EnableHWSync, memory
		n.Netboot, n.Environment, n.Error, n.ErrorDescription = true, env, "", ""
	}}); err != nil {
		return err
	}
	if err := s.nodeEvent(tx, n, evDeploying, ""); err != nil {
		return err
	}
	facts, err := s.syncFacts(tx, req.EnableHWSync)
	if err != nil {
		return err
	}
	facts[metaVCenter] = ""
	if osystem == "esxi" && a.Admin && (req.VCenter == nil || *req.VCenter) {
		facts[metaVCenter] = "True"
	}
	if err := tx.SetNodeMetadata(n.ID, facts); err != nil {
		return err
	}
	if err := tx.EndScripts(n.ID, storage.ScriptAborted); err != nil {
		return err
	}
	if _, err := tx.InsertScriptSet(n.ID, storage.SetInstallation, InstallLog); err != nil {
		return err
	}
	if err := s.claimAutoAddresses(tx, n.ID); err != nil {
		return err
	}
	if err := s.prepareSystem(tx, n, image, req.LicenseKey); err != nil {
		return err
	}
	// What the agent will be given must exist now, while the user can still be told.
	if _, err := s.installPlan(tx, n, image, planContext{MetadataURL: "http://127.0.0.1/MAAS/metadata/", Token: storage.NodeToken{ConsumerKey: "c", TokenKey: "t", TokenSecret: "s"}}); err != nil {
		return Errorf(Invalid, "Failed to render preseed: %v", err)
	}
	if err := s.checkPreseeds(tx, n, image); err != nil {
		return err
	}
	return s.powerUp(tx, n)
}

// decodeUserData takes base64, as clients send it, and what is not base64 as it is.
func decodeUserData(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	data := []byte(text)
	compact := strings.Join(strings.Fields(text), "")
	if b, err := base64.StdEncoding.DecodeString(compact); err == nil {
		data = b
	}
	if len(data) > maxUserData {
		return nil, FieldError("user_data", "User data is larger than %d bytes.", maxUserData)
	}
	return data, nil
}

// versions of Ubuntu that people name by number.
var ubuntuVersions = map[string]string{"16.04": "xenial", "18.04": "bionic", "20.04": "focal", "22.04": "jammy", "24.04": "noble", "26.04": "resolute"}

// deployImage finds the image that a request names, or the default one.
func (s *Service) deployImage(tx *storage.Tx, n *storage.Node, req DeployRequest) (storage.Image, error) {
	images, err := tx.RootImages()
	if err != nil {
		return storage.Image{}, err
	}
	defOS, err := s.settingText(tx, "default_osystem", "ubuntu")
	if err != nil {
		return storage.Image{}, err
	}
	defSeries, err := s.settingText(tx, "default_distro_series", "noble")
	if err != nil {
		return storage.Image{}, err
	}
	image, ok, choices := resolveImage(images, n.Architecture, req.DistroSeries, defOS, defSeries)
	if !ok {
		want := req.DistroSeries
		if want == "" {
			want = defOS + "/" + defSeries
		}
		return image, FieldError("distro_series", "'%s' is not a valid distro_series. It should be one of: '%s'.", want,
			strings.Join(append([]string{""}, choices...), "', '"))
	}
	return image, nil
}

// metaVCenter is the fact that an ESXi is to register itself with the vCenter of the settings.
const metaVCenter = "vcenter_registration"

// ToMemory says whether an image can be unpacked into memory and started there: one that is a root file system.
func ToMemory(image storage.Image) bool {
	switch strings.ReplaceAll(image.Filetype, ".", "-") {
	case "squashfs", "root-tgz", "root-txz":
		osystem, _, _ := strings.Cut(image.Name, "/")
		return osystem != "windows" && osystem != "esxi"
	}
	return false
}

// deployEnvironment is the ephemeral environment that installs. The light one alone can hand the machine over to a system in memory: in the full one
// it would run beside a system that holds the memory already.
func (s *Service) deployEnvironment(tx *storage.Tx, n *storage.Node, memory bool) (string, error) {
	env, err := s.settingText(tx, "ingot_boot_environment", "light")
	if err != nil || !memory || env == "light" {
		return env, err
	}
	_, err = tx.BootResourceNamed("ingot/light", archOf(n)+"/generic")
	if errors.Is(err, storage.ErrNotFound) {
		return env, FieldError("ephemeral_deploy", "Deploying to memory needs the image ingot/light for %s.", archOf(n))
	}
	return "light", err
}

// resolveImage finds the newest image for an architecture by os/series, series, os, version or a prefix. choices are the names there are.
func resolveImage(images []storage.Image, arch, want, defOS, defSeries string) (found storage.Image, ok bool, choices []string) {
	family, _, _ := strings.Cut(arch, "/")
	byName := map[string]storage.Image{}
	for _, m := range images {
		if f, _, _ := strings.Cut(m.Architecture, "/"); f != family {
			continue
		}
		if _, have := byName[m.Name]; !have { // the newest set comes first
			byName[m.Name] = m
			choices = append(choices, m.Name)
		}
	}
	slices.Sort(choices)
	get := func(name string) bool {
		found, ok = byName[name]
		return ok
	}
	if want == "" {
		get(defOS + "/" + defSeries)
		return found, ok, choices
	}
	osystem, series, slash := strings.Cut(want, "/")
	if slash {
		if v := ubuntuVersions[series]; v != "" && osystem == "ubuntu" {
			series = v
		}
		get(osystem + "/" + series)
		return found, ok, choices
	}
	if v := ubuntuVersions[want]; v != "" && get("ubuntu/"+v) {
		return found, ok, choices
	}
	for _, match := range []func(os, series string) bool{
		func(_, series string) bool { return series == want },
		func(os, _ string) bool { return os == want },
		func(os, series string) bool {
			return os != "ubuntu" && os != "custom" && strings.HasPrefix(series, want)
		},
	} {
		for i := len(choices) - 1; i >= 0; i-- { // the last in order is the newest
			if os, series, _ := strings.Cut(choices[i], "/"); match(os, series) && get(choices[i]) {
				return found, ok, choices
			}
		}
	}
	return found, false, choices
}

// checkDeployable refuses a machine on which an installation cannot end well, and says whether it goes to memory: where that is asked for, and where
// there is no disk.
func (s *Service) checkDeployable(tx *storage.Tx, n *storage.Node, image storage.Image, memory bool) (bool, error) {
	b, err := tx.LoadMachine(n.SystemID)
	if err != nil {
		return memory, err
	}
	configured := false
	for _, i := range b.Interfaces {
		for _, l := range i.Links {
			configured = configured || l.SubnetID != nil && l.AllocType != storage.AllocDiscovered
		}
	}
	if !configured {
		return memory, FieldError("network", "Node must be configured to use a network")
	}
	switch {
	case memory && !ToMemory(image):
		return memory, FieldError("ephemeral_deploy", "The image %s cannot be deployed to memory.", image.Name)
	case len(b.Disks) == 0 && ToMemory(image):
		memory = true
	}
	if memory {
		if n.Memory > 0 && image.Size > n.Memory<<20 {
			return memory, FieldError("ephemeral_deploy", "The image %s is larger than the machine's memory of %d MiB.", image.Name, n.Memory)
		}
		return memory, nil
	}
	osystem, series, _ := strings.Cut(image.Name, "/")
	if issues := storageIssues(b, osystem, series, WholeDisk(image)); len(issues) > 0 {
		return memory, &Error{Kind: Invalid, Fields: map[string][]string{"storage": issues}}
	}
	return memory, nil
}

func isUEFI(n *storage.Node) bool {
	return n.BIOSBootMethod != nil && strings.HasPrefix(*n.BIOSBootMethod, "uefi")
}

// bootDisk is the disk that was chosen, else the oldest physical one of at least 512 MiB.
func bootDisk(b *storage.Bundle) *storage.DiskBundle {
	for _, d := range b.Disks {
		if b.Node.BootDiskID != nil && d.ID == *b.Node.BootDiskID {
			return d
		}
	}
	for _, d := range b.Disks {
		if d.Type == "physical" && d.Size >= 512<<20 {
			return d
		}
	}
	return nil
}

// BootDisk is the disk that a machine boots from: the chosen one, or the oldest physical one that is large enough; nil without.
func BootDisk(b *storage.Bundle) *storage.DiskBundle { return bootDisk(b) }

// PowerOn switches a machine on. For an Allocated machine this is a deploy with the defaults.
func (s *Service) PowerOn(ctx context.Context, systemID, userData, comment string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		if n.OwnerID == nil {
			return Errorf(Conflict, "Can't start node: it hasn't been allocated.")
		}
		if n.Status == storage.StatusAllocated {
			return s.deploy(ctx, tx, n, DeployRequest{UserData: userData, Comment: comment})
		}
		if n.PowerType == "" {
			return Errorf(Invalid, "Unconfigured power type. Please set the power type for this machine and try again.")
		}
		if userData != "" {
			data, err := decodeUserData(userData)
			if err != nil {
				return err
			}
			n.UserData = data
			if err := tx.UpdateNode(n); err != nil {
				return err
			}
		}
		if err := s.userEvent(tx, n, evReqStart, comment); err != nil {
			return err
		}
		_, err := s.power(tx, n, PowerOn, false)
		return err
	})
}

// PowerOff switches a machine off. It returns nil when there is nothing by which the server could.
func (s *Service) PowerOff(ctx context.Context, systemID, stopMode, comment string) (*storage.Bundle, error) {
	if stopMode != "" && stopMode != "hard" && stopMode != "soft" {
		return nil, Errorf(Invalid, "Invalid stop_mode: Value must be one of: hard, soft (not '%s')", stopMode)
	}
	sent := false
	b, err := s.changeMachine(ctx, systemID, permEdit, func(tx *storage.Tx, n *storage.Node) error {
		if sent = s.queryable(n.PowerType); !sent {
			return nil
		}
		if err := s.userEvent(tx, n, evReqStop, comment); err != nil {
			return err
		}
		_, err := s.power(tx, n, PowerOff, stopMode == "soft")
		return err
	})
	if err != nil || !sent {
		return nil, err
	}
	return b, nil
}

// extraString reads a text of an image's extra JSON.
func extraString(raw json.RawMessage, key string) string {
	var m map[string]any
	if json.Unmarshal(raw, &m) != nil {
		return ""
	}
	v, ok := m[key]
	if !ok || v == nil {
		return ""
	}
	return fmt.Sprint(v)
}
