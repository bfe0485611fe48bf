"""Install the oldest version of each dependency that setup.cfg admits."""

import configparser
import re
import subprocess
import sys


setup = configparser.ConfigParser()
setup.read("setup.cfg")
required = setup["options"]["install_requires"] + setup["options.extras_require"]["cli"]
pins = [f"{name}=={bound}" for name, bound in re.findall(r"^([\w-]+)>=([\w.]+)", required, re.M)]
print("oldest:", *pins)
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *pins], check=True)
