"use strict";
// Opens NiiVue on the images that the page carries. Nothing is fetched: the library is unpacked into a script
// element, which the page's policy allows by its digest, and the images are handed over as they are.
(() => {
  const LIBRARY = document.getElementById("niivue-packed");
  const LABELS = { R: [0, 255, 77], G: [0, 59, 163], B: [0, 48, 255], A: [0, 255, 255], I: [0, 1, 2], labels: ["", "lesion", "rejected"] };
  const NO_WEBGL = "This browser shows no WebGL 2, which the viewer needs: see the figure above.";
  let loading = null;

  function loadLibrary() {
    if (!loading) loading = (async () => {
      const packed = Uint8Array.from(atob(LIBRARY.textContent), letter => letter.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.head.append(script);
      if (!window.niivue) throw new Error("the page's policy does not allow NiiVue");
    })();
    return loading;
  }

  async function start(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const find = name => box.querySelector("." + name);
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error(NO_WEBGL);
    find("stage").hidden = false;
    await loadLibrary();
    const { Niivue, NVImage } = window.niivue;
    const viewer = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 0.84, 0.29, 0.7], crosshairWidth: 1, crosshairGap: 6, show3Dcrosshair: false, isColorbar: false,
      dragAndDropEnabled: false, multiplanarForceRender: false, logLevel: "silent", loadingText: "", isOrientCube: false,
      onLocationChange: place => {
        const [x, y, z] = place.mm;
        find("place").textContent = `x = ${x.toFixed(0)}, y = ${y.toFixed(0)}, z = ${z.toFixed(0)} mm`
          + (place.values[1] ? `; anomaly score ${score(data, place.values[1].value)} (threshold ${data.threshold.toPrecision(3)})` : "");
      },
    });
    const canvas = box.querySelector("canvas");
    await viewer.attachToCanvas(canvas, false);
    const image = async (name, more) => NVImage.loadFromBase64({ base64: data[name], name: name + ".nii.gz", ...more });
    const level = 1 + 254 * (data.threshold - data.low) / (data.high - data.low);
    const marks = await image("marks", { opacity: 0.55 });
    viewer.addVolume(await image("flair", { colormap: "gray", cal_min: 0, cal_max: 255 }));
    viewer.addVolume(await image("anomaly", { colormap: "warm", opacity: 0, cal_min: Math.max(1, level / 2), cal_max: 255 }));
    marks.setColormapLabel(LABELS);
    viewer.addVolume(marks);
    viewer.setInterpolation(false);
    viewer.updateGLVolume();
    find("marks").onchange = event => viewer.setOpacity(2, event.target.checked ? 0.55 : 0);
    find("anomaly").onchange = event => viewer.setOpacity(1, event.target.checked ? 0.7 : 0);
    find("view").onchange = event => viewer.setSliceType(
      { multi: viewer.sliceTypeMultiplanar, axial: viewer.sliceTypeAxial, coronal: viewer.sliceTypeCoronal, sagittal: viewer.sliceTypeSagittal }[event.target.value]);
    box.goTo = mm => {
      viewer.scene.crosshairPos = viewer.mm2frac(mm);
      viewer.createOnLocationChange();
      viewer.drawScene();
    };
    box.goTo(data.centre);
    find("open").hidden = true;
    find("controls").hidden = false;
  }

  function score(data, level) {
    return level < 1 ? "n/a" : (data.low + (level - 1) / 254 * (data.high - data.low)).toPrecision(2);
  }

  function open(box) {
    if (!box.started) box.started = start(box).catch(error => {
      const message = box.querySelector(".message");
      message.textContent = error.message;
      message.hidden = false;
      box.querySelector(".stage").hidden = true;
      return error;
    });
    return box.started;
  }

  for (const box of document.querySelectorAll(".viewer")) {
    box.hidden = false;
    box.querySelector(".open").onclick = () => open(box);
    for (const button of document.querySelectorAll("button.go")) {
      if (button.dataset.viewer !== box.dataset.viewer) continue;
      button.hidden = false;
      button.onclick = async () => {
        await open(box);
        if (!box.goTo) return;
        box.goTo(button.dataset.mm.split(" ").map(Number));
        box.scrollIntoView({ block: "nearest" });
      };
    }
  }
  document.body.classList.add("has-viewer");
})();
