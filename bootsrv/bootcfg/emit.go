package bootcfg

import (
	"path"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// Nothing here returns to the loader after a failure: a known machine that falls through to the loader's next name would be
// enlisted, one that stops at a prompt waits for a hand. It waits half a minute and starts over.

func staticText(ref Ref, r Request) string {
	if ref.Method == MethodUEFI {
		// No device before the paths: GRUB goes on with what it came by, TFTP or the firmware's HTTP.
		return "# Boot loader configuration by machine, then by architecture.\n" +
			"configfile /grub/grub.cfg-${net_default_mac}\n" +
			"configfile /grub/grub.cfg-default-${grub_cpu}\n" +
			"echo 'Ingot has no boot configuration for this machine. Trying again in 30 seconds.'\n" +
			"sleep 30\nreboot\n"
	}
	// platform tells BIOS from UEFI, which decides how the machine is partitioned.
	q := "?platform=${platform}&buildarch=${buildarch}"
	return "#!ipxe\n" +
		"chain " + r.Base() + "/ipxe.cfg-${mac}" + q + " ||\n" +
		"chain " + r.Base() + "/ipxe.cfg-default-${buildarch}" + q + "&mac=${mac} ||\n" +
		"echo Ingot has no boot configuration for this machine. Trying again in 30 seconds.\n" +
		"sleep 30\nreboot\n"
}

func errorPage(syntax, why string) string {
	why = consoleText("Ingot: " + why)
	switch syntax {
	case MethodPXE:
		// PROMPT 1 with a timeout: the message stays on the screen for 30 seconds.
		return "DEFAULT retry\nPROMPT 1\nTIMEOUT 300\nSAY " + why + "\n\nLABEL retry\n  COM32 reboot.c32\n"
	case MethodUEFI:
		return "echo '" + why + "'\nsleep 30\nreboot\n"
	default:
		return "#!ipxe\necho " + why + "\nsleep 30\nreboot\n"
	}
}

func powerOffText(syntax string) string {
	switch syntax {
	case MethodPXE:
		return "DEFAULT poweroff\nPROMPT 0\nTIMEOUT 0\n\nLABEL poweroff\n  SAY Powering off.\n  COM32 poweroff.c32\n"
	case MethodUEFI:
		return "echo 'Powering off.'\nhalt\n"
	default:
		return "#!ipxe\necho Powering off.\npoweroff\n"
	}
}

func title(m machine) string {
	who := m.system
	if who == "" {
		who = "new machine"
	}
	return consoleText("Ingot: booting " + who + " for " + string(m.purpose))
}

func pxelinuxBoot(m machine, r Request, img *api.BootImage, line []param) (string, error) {
	// lpxelinux, sent to us by DHCP option 210, asks by HTTP and loads by HTTP. Whoever asks by TFTP may know nothing else.
	base := "images/"
	if r.Protocol == HTTP {
		base = r.Base() + "/images/"
	}
	var b strings.Builder
	b.WriteString("DEFAULT execute\nPROMPT 0\nTIMEOUT 0\n\nLABEL execute\n")
	if m.arch == "amd64" || m.arch == "i386" {
		b.WriteString("  SAY " + title(m) + "\n")
	}
	b.WriteString("  KERNEL " + base + img.Kernel + "\n  INITRD " + base + img.Initrd + "\n")
	b.WriteString("  APPEND " + plainLine(line) + "\n")
	if m.arch != "ppc64el" && m.arch != "s390x" {
		b.WriteString("  IPAPPEND 2\n")
	}
	return b.String(), nil
}

func grubBoot(m machine, r Request, img *api.BootImage, line []param) (string, error) {
	args, err := grubLine(line)
	if err != nil {
		return "", err
	}
	bootif := "01-${net_default_mac}"
	if m.mac != "" {
		bootif = "01-" + strings.ReplaceAll(m.mac, ":", "-")
	}
	var b strings.Builder
	b.WriteString("echo '" + title(m) + "'\nset source=\n")
	if r.Protocol == TFTP {
		// HTTP is many times faster, but Debian's signed GRUB has no http module and Secure Boot lets it load none. What came by
		// HTTP stays with its own device.
		b.WriteString("if [ -z \"${lockdown}\" ]; then\n  if insmod http; then\n    set source=(http," + strings.TrimPrefix(r.Base(), "http://") + ")\n  fi\nfi\n")
	}
	b.WriteString("if linux ${source}/images/" + img.Kernel + " " + args + " BOOTIF=" + bootif + "; then\n")
	b.WriteString("  if initrd ${source}/images/" + img.Initrd + "; then\n    boot\n  fi\nfi\n")
	b.WriteString("echo 'Ingot: kernel or initrd could not be loaded. Trying again in 30 seconds.'\nsleep 30\nreboot\n")
	return b.String(), nil
}

func ipxeBoot(m machine, r Request, img *api.BootImage, line []param) (string, error) {
	args, err := ipxeLine(line)
	if err != nil {
		return "", err
	}
	base := r.Base() + "/images/"
	// initrd= names the initrd for kernels that were started through the EFI stub; others ignore it.
	return "#!ipxe\necho " + title(m) + "\n" +
		"kernel " + base + img.Kernel + " || goto failed\n" +
		"initrd " + base + img.Initrd + " || goto failed\n" +
		"imgargs " + path.Base(img.Kernel) + " initrd=" + path.Base(img.Initrd) + " " + args + " BOOTIF=01-${mac:hexhyp} || goto failed\n" +
		"boot ||\n:failed\necho Ingot: kernel or initrd could not be loaded. Trying again in 30 seconds.\nsleep 30\nreboot\n", nil
}

// efiLoaders are the loaders of installed systems, in the order in which they are tried. The removable-media name comes first: it
// is the one that our installs always write.
var efiLoaders = map[string]struct{ signed, unsigned []string }{
	"amd64": {
		signed: []string{"boot/bootx64.efi", "ubuntu/shimx64.efi", "ubuntu/grubx64.efi", "debian/shimx64.efi", "debian/grubx64.efi", "Microsoft/Boot/bootmgfw.efi"},
		unsigned: []string{"centos/shimx64.efi", "centos/grubx64.efi", "redhat/shimx64.efi", "redhat/grubx64.efi", "rhel/shimx64.efi", "rhel/grubx64.efi",
			"rocky/shimx64.efi", "rocky/grubx64.efi", "suse/shim.efi", "suse/grubx64.efi", "ol/shim.efi", "ol/grubx64.efi", "red/grubx64.efi"},
	},
	"arm64": {signed: []string{"ubuntu/grubaa64.efi", "boot/bootaa64.efi", "debian/grubaa64.efi"}},
}

func localText(m machine, r Request) (string, error) {
	switch m.syntax {
	case MethodPXE:
		if m.arch == "amd64" || m.arch == "i386" || m.arch == "" {
			return "DEFAULT local\nPROMPT 0\nTIMEOUT 0\n\nLABEL local\n  SAY Ingot: booting the local disk\n  KERNEL chain.c32\n  APPEND hd0\n", nil
		}
		return "DEFAULT local\nPROMPT 0\nTIMEOUT 0\n\nLABEL local\n  LOCALBOOT 0\n", nil
	case MethodIPXE:
		// iPXE cannot hand over to a UEFI disk, and leaving it leads back to it: GRUB finds the disk's loader. It gets the configuration
		// below by its own request.
		grub := "grubx64.efi"
		if m.arch == "arm64" {
			grub = "grubaa64.efi"
		}
		return "#!ipxe\necho Ingot: booting the local disk\n" +
			"iseq ${platform} efi && goto efi ||\n" +
			"sanboot --no-describe --drive 0x80 ||\nsanboot --no-describe --drive 0x81 ||\n" +
			"sanboot --no-describe --drive 0x82 ||\nsanboot --no-describe --drive 0x83 ||\ngoto failed\n" +
			":efi\nchain tftp://${next-server}/" + grub + " || chain " + r.Base() + "/" + grub + " ||\n" +
			":failed\necho Ingot: no local disk could be booted.\nsleep 30\nexit 1\n", nil
	}
	if m.arch == "ppc64el" {
		return "echo 'Ingot: booting the local disk'\nif search --set=root --file /boot/grub/grub.cfg; then\n  configfile /boot/grub/grub.cfg\nfi\nexit 1\n", nil
	}
	loaders, ok := efiLoaders[m.arch]
	if !ok {
		loaders = efiLoaders["amd64"]
	}
	var b strings.Builder
	b.WriteString("echo 'Ingot: booting the local disk'\n")
	try := func(indent string, names []string) {
		for _, n := range names {
			b.WriteString(indent + "if search --no-floppy --set=root --file /efi/" + n + "; then\n" +
				indent + "  chainloader /efi/" + n + "\n" + indent + "  boot\n" + indent + "fi\n")
		}
	}
	try("", loaders.signed)
	if len(loaders.unsigned) > 0 {
		// Under Secure Boot a loader that our shim cannot verify ends the boot, so these are tried only without it.
		b.WriteString("if [ \"${shim_lock}\" != \"y\" ]; then\n")
		try("  ", loaders.unsigned)
		b.WriteString("fi\n")
	}
	// Failure, not success: firmware then goes on to its next entry.
	b.WriteString("exit 1\n")
	return b.String(), nil
}
