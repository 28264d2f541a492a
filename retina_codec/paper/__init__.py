"""The paper's figures and claims: what the scripts in analyses/ share."""
