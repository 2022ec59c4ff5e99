package windows

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"unicode/utf16"
)

// The answer file, in the order of Microsoft's reference of the components' settings. Only what a deployment decides is in it: the image is
// generalised, so the passes that partition and copy are over. Elements are typed; encoding/xml escapes what they hold.

type unattend struct {
	XMLName  xml.Name   `xml:"urn:schemas-microsoft-com:unattend unattend"`
	Settings []settings `xml:"settings"`
}

type settings struct {
	Pass       string      `xml:"pass,attr"`
	Components []component `xml:"component"`
}

// component is one component's settings in one pass. Its fields stand in the reference's order; a component has those of its own only.
type component struct {
	Name         string `xml:"name,attr"`
	Architecture string `xml:"processorArchitecture,attr"`
	Token        string `xml:"publicKeyToken,attr"`
	Language     string `xml:"language,attr"`
	Scope        string `xml:"versionScope,attr"`
	WCM          string `xml:"xmlns:wcm,attr"` // Windows' own tools know the namespace by this prefix

	// Microsoft-Windows-Deployment
	RunSynchronous *runSynchronous `xml:"RunSynchronous"`

	// Microsoft-Windows-International-Core
	InputLocale  string `xml:"InputLocale,omitempty"`
	SystemLocale string `xml:"SystemLocale,omitempty"`
	UILanguage   string `xml:"UILanguage,omitempty"`
	UserLocale   string `xml:"UserLocale,omitempty"`

	// Microsoft-Windows-Shell-Setup
	ComputerName           string        `xml:"ComputerName,omitempty"`
	OOBE                   *oobe         `xml:"OOBE"`
	ProductKey             string        `xml:"ProductKey,omitempty"`
	RegisteredOrganization string        `xml:"RegisteredOrganization,omitempty"`
	RegisteredOwner        string        `xml:"RegisteredOwner,omitempty"`
	TimeZone               string        `xml:"TimeZone,omitempty"`
	UserAccounts           *userAccounts `xml:"UserAccounts"`
}

type runSynchronous struct {
	Commands []synchronousCommand `xml:"RunSynchronousCommand"`
}

type synchronousCommand struct {
	Action      string `xml:"wcm:action,attr"`
	Description string `xml:"Description"`
	Order       int    `xml:"Order"`
	Path        string `xml:"Path"`
	WillReboot  string `xml:"WillReboot"`
}

type oobe struct {
	HideEULAPage              bool   `xml:"HideEULAPage"`
	HideLocalAccountScreen    bool   `xml:"HideLocalAccountScreen"`
	HideOEMRegistrationScreen bool   `xml:"HideOEMRegistrationScreen"`
	HideOnlineAccountScreens  bool   `xml:"HideOnlineAccountScreens"`
	HideWirelessSetupInOOBE   bool   `xml:"HideWirelessSetupInOOBE"`
	NetworkLocation           string `xml:"NetworkLocation"`
	ProtectYourPC             int    `xml:"ProtectYourPC"`
}

type userAccounts struct {
	AdministratorPassword secret `xml:"AdministratorPassword"`
}

type secret struct {
	Value     string `xml:"Value"`
	PlainText bool   `xml:"PlainText"`
}

// hiddenPassword is how answer files hold a password that is not plain text: with the element's name behind it, UTF-16, base64. It hides the
// password from a glance, no more.
func hiddenPassword(password string) secret {
	u := utf16.Encode([]rune(password + "AdministratorPassword"))
	b := make([]byte, 0, 2*len(u))
	for _, c := range u {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return secret{Value: base64.StdEncoding.EncodeToString(b)}
}

// setupCommand runs our script where Windows is being made this machine. It holds nothing of the input.
const setupCommand = `cmd.exe /c powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -File %SystemDrive%\ProgramData\Ingot\setup.ps1 -Stage Specialize`

func (in *Input) unattend() ([]byte, error) {
	c := func(name string) component {
		return component{Name: name, Architecture: in.Arch, Token: "31bf3856ad364e35", Language: "neutral", Scope: "nonSxS", WCM: "http://schemas.microsoft.com/WMIConfig/2002/State"}
	}
	deployment := c("Microsoft-Windows-Deployment")
	deployment.RunSynchronous = &runSynchronous{[]synchronousCommand{{Action: "add", Description: "Access lists, OpenSSH and WinRM", Order: 1, Path: setupCommand, WillReboot: "Never"}}}
	special := c("Microsoft-Windows-Shell-Setup")
	special.ComputerName, special.ProductKey, special.RegisteredOrganization, special.RegisteredOwner, special.TimeZone = in.computer, in.ProductKey, in.Organization, in.Owner, in.TimeZone
	international := c("Microsoft-Windows-International-Core")
	international.InputLocale, international.SystemLocale, international.UILanguage, international.UserLocale = in.Language, in.Language, in.Language, in.Language
	welcome := c("Microsoft-Windows-Shell-Setup")
	welcome.OOBE = &oobe{true, true, true, true, true, "Work", 3}
	if in.Password != "" {
		welcome.UserAccounts = &userAccounts{hiddenPassword(in.Password)}
	}
	doc := unattend{Settings: []settings{{Pass: "specialize", Components: []component{deployment, special}}, {Pass: "oobeSystem", Components: []component{international, welcome}}}}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	e := xml.NewEncoder(&b)
	e.Indent("", "  ")
	if err := e.Encode(doc); err != nil {
		return nil, err
	}
	b.WriteString("\n")
	return b.Bytes(), nil
}
