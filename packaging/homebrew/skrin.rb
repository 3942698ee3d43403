# For a tap of your own. Never tried on a Mac yet: docs/macos.md.
class Skrin < Formula
  desc "Mounts an end-to-end-encrypted vault on storage nobody has to trust as a folder"
  homepage "https://skrin.invalid/skrin"
  license any_of: ["MIT", "Apache-2.0"]
  head "https://skrin.invalid/skrin.git", branch: "main"

  depends_on "pkgconf" => :build
  depends_on "rust" => :build
  depends_on :macos
  depends_on "openssl@3"

  def install
    system "cargo", "install", *std_cargo_args
  end

  def caveats
    <<~EOS
      Building and mounting need macFUSE 4 or FUSE-T, which are no formulae:
        brew install --cask macfuse
    EOS
  end

  test do
    assert_match "skrin", shell_output("#{bin}/skrin --version")
  end
end
