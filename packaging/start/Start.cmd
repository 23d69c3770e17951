@echo off
rem Opens the page in the browser. The service runs as long as this window is open.
"%~dp0vibevoice-asr.exe" open
if errorlevel 1 pause
